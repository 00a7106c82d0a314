"""Event files for TensorBoard, where its package is installed; nothing where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = "tensorboard"


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
