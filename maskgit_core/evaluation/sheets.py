"""Pictures of an evaluation: what the numbers do not say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from maskgit_core.data.contact_sheet import contact_sheet
from maskgit_core.data.image_files import write_image
from maskgit_core.evaluation.distances import Nearest
from maskgit_core.evaluation.tables import Evidence
from maskgit_core.files import write_atomically
from maskgit_core.pixels import to_uint8

NEAREST_SHOWN = 16
PAIRS_SHOWN = 16
CLASS_SHOWN = 24
PAIR_COLUMNS, CLASS_COLUMNS = 8, 6


def file_name(text: str) -> str:
    """Return a class name as a part of a file name: letters, digits and hyphens."""
    return re.sub(r"[^\w]+", "-", text.casefold()).strip("-")[:60] or "class"


def pair_sheet(above: Tensor, below: Tensor) -> Image.Image:
    """Return rows of images float32 (B, 3, H, W), each row above the row it is compared with."""
    rows = [
        torch.cat([pad_row(part, PAIR_COLUMNS) for part in pair])
        for pair in zip(above.split(PAIR_COLUMNS), below.split(PAIR_COLUMNS), strict=True)
    ]
    return contact_sheet(to_uint8(torch.cat(rows)), PAIR_COLUMNS, gap=2)


def pad_row(images: Tensor, columns: int) -> Tensor:
    """Return the images and as many white ones as a full row needs."""
    missing = columns - len(images)
    return torch.cat([images, images.new_ones(missing, *images.shape[1:])])


def save_sheets(
    out: Path,
    evidence: Evidence,
    nearest: Nearest | None,
    classes: Sequence[str],
    recipe: Mapping[str, Any],
) -> list[str]:
    """Write the sheets and return their file names.

    `reconstructions.png` has held-out photos above their reconstructions, `nearest.png` samples
    above the training photo with the nearest features, `samples-<class>.png` samples of a class.

    Args:
        out: folder.
        evidence: see `evaluation_tables.Evidence`.
        nearest: training photos of the samples; None writes no `nearest.png`.
        classes: names, label by label.
        recipe: of the samples, kept in the files.

    Raises:
        CheckpointError: the disk is full or not writable.
    """
    places = torch.linspace(0, len(evidence.val) - 1, PAIRS_SHOWN).long().unique()
    photos, made = evidence.val.images(places), evidence.val_made.batch(places.tolist())
    sheets = {"reconstructions.png": pair_sheet(photos, made)}
    if evidence.samples is not None:
        labels = evidence.sample_labels
        if nearest is not None:
            shown = min(NEAREST_SHOWN, len(labels))
            photos = evidence.reference.images(nearest.index[:shown])
            sheets["nearest.png"] = pair_sheet(evidence.samples.batch(range(shown)), photos)
        for label in labels.unique().tolist():
            chosen = (labels == label).nonzero().flatten()[:CLASS_SHOWN].tolist()
            name = f"samples-{label:03d}-{file_name(classes[label])}.png"
            sheets[name] = contact_sheet(evidence.samples.pixels[chosen], CLASS_COLUMNS, gap=2)
    for name, sheet in sheets.items():
        write = partial(write_image, sheet, kind="PNG", recipe=recipe)
        write_atomically(out / name, write)
    return list(sheets)
