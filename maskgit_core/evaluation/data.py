"""Photos for evaluation: which folders, the classes of the checkpoint, balanced draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit_core.data.fingerprints import hash_of_rows, hash_of_values
from maskgit_core.data.folders import labels_of
from maskgit_core.data.photos import Photos, centre_batch, pack_photos, packed_size, scan_folder
from maskgit_core.evaluation.store import Progress, no_progress

CHECKPOINT = "the checkpoint"


@dataclass(frozen=True)
class PhotoSet:
    """The photos of one folder, as the model sees them.

    Attributes:
        photos: packed with the margin for crops of training; `labels` are of `photos.classes`.
        labels: int64 (num,), labels of the model.
        files: path of each photo relative to its folder.
        image_size: pixels a side of the centre crop.
    """

    photos: Photos
    labels: Tensor
    files: list[str]
    image_size: int

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def key(self) -> str:
        """Hash of the pixels, whatever the files are called."""
        return hash_of_values("photos", hash_of_rows(self.photos.pixels), self.image_size)

    def images(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return float32 (B, 3, S, S) in [-1, 1], the centre crop that training shows on average.

        Training crops at random from photos packed 1/24 larger; the middle one is taken here.
        """
        return centre_batch(self.photos, torch.as_tensor(indices), self.image_size)


def check_folder(folder: Path, classes: Sequence[str], least: int) -> None:
    """Look at names only, so that a mistake is told before minutes of reading.

    Raises:
        ValueError: unknown classes, no image, or fewer than `least` of them.
    """
    found = scan_folder(folder)
    labels_of(found.classes, classes, where=folder, whose=CHECKPOINT)
    check_count(folder, len(found.files), least)


def check_count(folder: Path, count: int, least: int) -> None:
    """Raise ValueError unless there are enough photos for the distances."""
    if count < least:
        raise ValueError(
            f"the distances need at least {least} photos in {folder}; found {count} readable ones"
        )


def load_photo_set(
    folder: Path,
    model: Any,
    least: int,
    cache_dir: Path | None = None,
    progress: Progress = no_progress,
) -> PhotoSet:
    """Decode the photos of a one-folder-per-class directory, once if there is a cache folder.

    Args:
        folder: one folder per class.
        model: has `classes` and `image_size`.
        least: photos that are needed.
        cache_dir: where packed photos are kept, see `photos.pack_photos`.
        progress: shows how far decoding is.

    Raises:
        ValueError: as `check_folder`.
    """
    photos = pack_photos(
        folder,
        packed_size(model.image_size),
        cache_dir=cache_dir,
        progress=lambda files: progress(f"read {folder.name} photos", files),
    )
    check_count(folder, len(photos.labels), least)
    skipped = set(photos.skipped)
    files = [name for name in scan_folder(folder).files if name not in skipped]
    labels = labels_of(photos.classes, model.classes, where=folder, whose=CHECKPOINT)
    return PhotoSet(photos, torch.tensor(labels)[photos.labels], files, model.image_size)


def balanced_draw(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return int64 (min(count, num),), places of a random draw with classes as equal as possible.

    Every class gives one, then every class a second one, and so on; a class that has no more is
    left out. A shorter draw is the start of a longer one.

    Args:
        labels: int64 (num,).
        count: how many to draw.
        seed: of the draw.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = labels[order].numpy()
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(shuffled):
        places = np.flatnonzero(shuffled == label)
        rank[places] = np.arange(len(places))
    return order[torch.from_numpy(np.lexsort((shuffled, rank)))][:count]
