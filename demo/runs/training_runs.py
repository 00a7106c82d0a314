"""Training runs on disk, which may be written at this moment, and their measures as pictures."""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path

from maskgit_core.training.loop import METRICS_FILE

MOST_RUNS = 200
MOST_DEPTH = 4
MOST_BYTES = 8 << 20  # of a log; what comes before the last of it is not drawn
SHEET_NAME = re.compile(r"sheet-(\d+)\.png")

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 20
MOST_POINTS = 400

# Title and the measures that share one picture; what is missing is left out.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", ("loss",)),
    ("Cross-entropy, held out (nats)", ("val_cross_entropy",)),
    ("Predicted right (share)", ("accuracy", "val_accuracy")),
    ("PSNR (dB)", ("psnr", "val_psnr")),
    ("Codes in use (share)", ("code_share", "val_code_share")),
    ("Perceptual distance", ("perceptual",)),
    ("Images a second", ("images_per_second",)),
    ("Learning rate (share of the peak)", ("rate",)),
)

Curves = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class TrainingRun:
    """One folder with a log.

    Attributes:
        name: its path below the training folder.
        folder: where it is.
        changed: when the log was written last, in seconds since 1970.
    """

    name: str
    folder: Path
    changed: float

    def sheets(self) -> dict[int, Path]:
        """The sheets by their step, oldest first."""
        sheets = {}
        for path in self.folder.glob("sheet-*.png"):
            match = SHEET_NAME.fullmatch(path.name)
            if match:
                sheets[int(match.group(1))] = path
        return dict(sorted(sheets.items()))

    def stamp(self) -> tuple[float, int, int]:
        """Changes whenever there is something new to show."""
        log = (self.folder / METRICS_FILE).stat()
        return log.st_mtime, log.st_size, len(self.sheets())


def find_runs(root: Path) -> list[TrainingRun]:
    """Return the runs below a folder, the one written last first."""
    runs = []
    root = root.resolve()
    for folder, inner, files in os.walk(root):
        here = Path(folder)
        depth = len(here.relative_to(root).parts)
        inner[:] = sorted(n for n in inner if not n.startswith(".")) if depth < MOST_DEPTH else []
        if METRICS_FILE in files:
            name = here.relative_to(root).as_posix()
            try:
                changed = (here / METRICS_FILE).stat().st_mtime
            except OSError:
                continue
            runs.append(TrainingRun(root.name if name == "." else name, here, changed))
    runs.sort(key=lambda run: -run.changed)
    return runs[:MOST_RUNS]


def read_curves(run: TrainingRun) -> Curves:
    """Return each measure as (step, value) pairs; a torn or foreign line is left out."""
    curves: Curves = defaultdict(list)
    with (run.folder / METRICS_FILE).open("rb") as log:
        size = os.fstat(log.fileno()).st_size
        log.seek(max(0, size - MOST_BYTES))
        text = log.read(MOST_BYTES).decode("utf-8", errors="replace")
    for line in text.splitlines():
        try:
            values = json.loads(line)
            step = float(values.pop("step"))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                curves[name].append((step, float(value)))
    return dict(curves)


def draw_curves(curves: Curves) -> str:
    """Return HTML: one picture for each group of measures that the run has."""
    pictures = []
    for title, names in GROUPS:
        lines = {name: _finite(curves[name]) for name in names if name in curves}
        lines = {name: points for name, points in lines.items() if points}
        if lines:
            pictures.append(_picture(title, lines))
    if not pictures:
        return "<p>This run has logged nothing yet.</p>"
    return f'<div class="curves">{"".join(pictures)}</div>'


def _finite(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    points = [point for point in points if math.isfinite(point[1])]
    stride = -(-len(points) // MOST_POINTS) if points else 1
    return [*points[:-1:stride], *points[-1:]]


def _picture(title: str, lines: dict[str, list[tuple[float, float]]]) -> str:
    every = [point for points in lines.values() for point in points]
    left, right = min(x for x, _ in every), max(x for x, _ in every)
    low, high = min(y for _, y in every), max(y for _, y in every)
    if high == low:
        low, high = low - 0.5, high + 0.5

    def place(x: float, y: float) -> str:
        across = (x - left) / (right - left) if right > left else 0.5
        return (
            f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f},"
            f"{TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"
        )

    drawn, keys = [], []
    for index, (name, points) in enumerate(lines.items()):
        path = " ".join(place(x, y) for x, y in points)
        drawn.append(f'<polyline class="line line-{index}" points="{path}"/>')
        if len(points) == 1:
            x, y = place(*points[0]).split(",")
            drawn.append(f'<circle class="dot line-{index}" cx="{x}" cy="{y}" r="3"/>')
        label = "held out" if name.startswith("val_") else "training"
        value = f"{points[-1][1]:.4g}"
        keys.append(f'<span class="key key-{index}">{label} {value}</span>' if len(lines) > 1
                    else f'<span class="key key-{index}">{value}</span>')  # fmt: skip
    base = HEIGHT - BOTTOM
    return (
        f"<figure><figcaption>{escape(title)} {' '.join(keys)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)} over steps">'
        f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>'
        f'<line class="axis" x1="{LEFT}" y1="{TOP}" x2="{LEFT}" y2="{base}"/>'
        f'<text x="{LEFT - 4}" y="{TOP + 8}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{LEFT - 4}" y="{base}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 5}">step {left:,.0f}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{right:,.0f}</text>'
        f"{''.join(drawn)}</svg></figure>"
    )
