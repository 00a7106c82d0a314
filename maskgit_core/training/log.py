"""The log of a run: its measures as JSON lines, and for TensorBoard where that is installed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskgit_core.files import write_atomically

METRICS_FILE = "metrics.jsonl"
FOLDER = "tensorboard"  # of the event files


class EventWriter:
    """Writes the measures of a run, and its sheets, as TensorBoard events.

    Args:
        writer: a `torch.utils.tensorboard.SummaryWriter`.
        out: folder of the run.
    """

    def __init__(self, writer: Any, out: Path) -> None:
        self._writer = writer
        self._out = out

    def add(self, step: int, measures: dict[str, float]) -> None:
        """Write the measures of a step, and the sheet where one was made."""
        for name, value in measures.items():
            self._writer.add_scalar(name, value, step)
        sheet = self._out / f"sheet-{step:07d}.png"
        if sheet.is_file():
            with Image.open(sheet) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image("sheet", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def open_writer(out: Path) -> EventWriter | None:
    """Return a writer of the folder `tensorboard` in a run; None without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return EventWriter(SummaryWriter(log_dir=str(out / FOLDER)), out)


def data_share(out: Path) -> float | None:
    """Return the mean share of a run's time that went to its batches; None without a log line.

    What is left is the network's. The log's lines cover equal numbers of steps.
    """
    shares = []
    with contextlib.suppress(OSError):
        for line in (out / METRICS_FILE).read_text(encoding="utf-8").splitlines():
            share = json.loads(line).get("data_share")
            shares += [] if share is None else [share]
    return sum(shares) / len(shares) if shares else None


def keep_metrics(path: Path, step: int) -> None:
    """Leave the lines up to a step: later ones are written again, a torn one is dropped."""
    kept = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                keep = json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError):
                continue
            if keep:
                kept.append(line + "\n")
    write_atomically(path, lambda part: Path(part).write_text("".join(kept), encoding="utf-8"))
