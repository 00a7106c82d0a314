"""Photos for evaluation: which folders, the classes of the checkpoint, balanced draws."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskgit_core.data.photos import Photos, centre_batch, pack_photos, packed_size, scan_folder
from maskgit_core.evaluation.store import Progress, hash_of_rows, key_of, no_progress
from maskgit_core.inputs import same_name

TRAIN, VAL = "train", "val"
LISTED_CLASSES = 12


@dataclass(frozen=True)
class DataFolders:
    """Where the photos are.

    Attributes:
        train: one folder per class, photos that the model may have seen; None where there are
            none to compare with.
        val: one folder per class, held-out photos.
    """

    train: Path | None
    val: Path


def find_data(
    data_dir: str | os.PathLike[str], train_dir: str | os.PathLike[str] | None = None
) -> DataFolders:
    """Return the folders of a data directory.

    Args:
        data_dir: holds `train/` and `val/`; or `val/` alone; or one folder per class, which are
            then the held-out photos.
        train_dir: training photos in another place, one folder per class or inside `train/`.

    Raises:
        ValueError: a directory is missing, or holds `train/` without `val/`.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise ValueError(f"data must be a directory; {data_dir} is not one")
    has_train, has_val = (data_dir / TRAIN).is_dir(), (data_dir / VAL).is_dir()
    if has_train and not has_val:
        raise ValueError(f"data must hold {VAL}/ beside {TRAIN}/; {data_dir} holds {TRAIN}/ only")
    train = data_dir / TRAIN if has_train else None
    if train_dir is not None:
        train = Path(train_dir)
        train = train / TRAIN if (train / TRAIN).is_dir() else train
        if not train.is_dir():
            raise ValueError(f"train must be a directory with one folder per class; got {train}")
    return DataFolders(train, data_dir / VAL if has_val else data_dir)


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
        return key_of("photos", hash_of_rows(self.photos.pixels), self.image_size)

    def images(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return float32 (B, 3, S, S) in [-1, 1], the centre crop that training shows on average.

        Training crops at random from photos packed 1/24 larger; the middle one is taken here.
        """
        return centre_batch(self.photos, torch.as_tensor(indices), self.image_size)


def label_of_classes(names: Sequence[str], known: Sequence[str], where: Path) -> list[int]:
    """Return the model's label of each class folder; case does not matter.

    Raises:
        ValueError: folders that are no class of the checkpoint, named with those that are.
    """
    labels = {same_name(name): label for label, name in enumerate(known)}
    unknown = [name for name in names if same_name(name) not in labels]
    if unknown:
        raise ValueError(
            f"data holds classes that the checkpoint does not know: {shortened(unknown)} "
            f"(in {where}); it knows {shortened(known)}"
        )
    return [labels[same_name(name)] for name in names]


def shortened(names: Sequence[str]) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = len(names) - LISTED_CLASSES
    return ", ".join(names[:LISTED_CLASSES]) + (f" and {more} more" if more > 0 else "")


def check_folder(folder: Path, classes: Sequence[str], least: int) -> None:
    """Look at names only, so that a mistake is told before minutes of reading.

    Raises:
        ValueError: unknown classes, no image, or fewer than `least` of them.
    """
    found = scan_folder(folder)
    label_of_classes(found.classes, classes, folder)
    check_count(folder, len(found.files), least)


def check_count(folder: Path, count: int, least: int) -> None:
    """Raise ValueError unless there are enough photos for the distances."""
    if count < least:
        raise ValueError(
            f"the distances need at least {least} photos in {folder}; found {count} readable ones"
        )


def load_photo_set(
    folder: Path,
    classes: Sequence[str],
    image_size: int,
    *,
    least: int,
    cache_dir: Path | None = None,
    progress: Progress = no_progress,
) -> PhotoSet:
    """Decode the photos of a one-folder-per-class directory, once if there is a cache folder.

    Args:
        folder: one folder per class.
        classes: names that the model knows, label by label.
        image_size: pixels a side that the model works at.
        least: photos that are needed.
        cache_dir: where packed photos are kept, see `data.pack_photos`.
        progress: shows how far decoding is.

    Raises:
        ValueError: as `check_folder`.
    """
    photos = pack_photos(
        folder,
        packed_size(image_size),
        cache_dir=cache_dir,
        progress=lambda files: progress(f"read {folder.name} photos", files),  # type: ignore
    )
    check_count(folder, len(photos.labels), least)
    skipped = set(photos.skipped)
    files = [name for name in scan_folder(folder).files if name not in skipped]
    labels = torch.tensor(label_of_classes(photos.classes, classes, folder))[photos.labels]
    return PhotoSet(photos, labels, files, image_size)


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
