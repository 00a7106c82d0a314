"""Where the training commands find their photos: --data and --val."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from maskgit_core.data.folders import labels_of, training_folders

if TYPE_CHECKING:
    from maskgit_core.data.photos import Photos


def fetch_data(args: argparse.Namespace) -> None:
    """Put the folders of what is on the Hub in the place of its name, in --data and --val."""
    from maskgit_core.data.hub import fetch_dataset, is_dataset_name
    from maskgit_core.distributed.group import first_alone

    for name in ("data", "val"):
        source = getattr(args, name)
        if source and is_dataset_name(source):
            setattr(args, name, str(first_alone(partial(fetch_dataset, source))))


def data_folders(args: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return the folders of training photos and of held-out ones."""
    found = training_folders(args.data, args.val)
    assert found.train is not None
    return found.train, found.val


def load_photos(args: argparse.Namespace, image_size: int) -> tuple[Photos, Photos | None]:
    """Read training photos and held-out ones, labelled as those of training, with a bar.

    Raises:
        ValueError: the held-out photos have other classes.
    """
    import torch
    from tqdm import tqdm

    from maskgit_core.data.photos import pack_photos, packed_size, scan_folder
    from maskgit_core.distributed.group import first_alone

    def progress(files: Sequence[str]) -> Sequence[str]:
        return tqdm(files, desc="reading photos", unit="photo")

    def pack(folder: Path) -> Photos:
        return first_alone(lambda: pack_photos(folder, size, cache_dir=cache, progress=progress))

    cache, size = Path(args.cache or args.out), packed_size(image_size)
    train_dir, val_dir = data_folders(args)
    if val_dir is None:
        return pack(train_dir), None
    # Names first: reading a large folder takes minutes.
    classes, held_out = scan_folder(train_dir).classes, scan_folder(val_dir).classes
    labels = labels_of(held_out, classes, where=val_dir, whose="the training data", argument="val")
    photos, val = pack(train_dir), pack(val_dir)
    return photos, replace(val, labels=torch.tensor(labels)[val.labels], classes=classes)
