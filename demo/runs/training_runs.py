"""Training runs on disk, as the Training tab reads them: they may be written at this moment."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from maskgit_core.training.loop import METRICS_FILE

MOST_RUNS = 200
MOST_DEPTH = 4
MOST_BYTES = 8 << 20  # of a log; what comes before the last of it is not drawn
SHEET_NAME = re.compile(r"sheet-(\d+)\.png")

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
