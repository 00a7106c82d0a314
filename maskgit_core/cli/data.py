"""Where the training commands find their photos: --data and --val."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskgit_core.data.photos import Photos

HELD_OUT = ("val", "validation")  # the second is the usual name on the Hub


def fetch_data(args: argparse.Namespace) -> None:
    """Put the folders of what is on the Hub in the place of its name, in --data and --val."""
    from maskgit_core.data.hub import fetch_dataset, is_dataset_name
    from maskgit_core.distributed.group import first_alone

    for name in ("data", "val"):
        source = getattr(args, name)
        if source and is_dataset_name(source):
            setattr(args, name, str(first_alone(lambda source=source: fetch_dataset(source))))


def data_folders(args: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return the folders of training photos and of held-out ones."""
    data = Path(args.data)
    held_out = Path(args.val) if args.val else None
    if not _is_split(data):
        return data, held_out
    for name in HELD_OUT:
        if held_out is None and (data / name).is_dir():
            held_out = data / name
    return data / "train", held_out


def _is_split(data: Path) -> bool:
    """Whether data/train holds the training data, and is not a class of this name."""
    if not (data / "train").is_dir():
        return False
    names = {path.name for path in data.iterdir() if path.is_dir()}
    return names <= {"train", *HELD_OUT, "test"} or any(
        p.is_dir() for p in (data / "train").iterdir()
    )


def load_photos(args: argparse.Namespace, image_size: int) -> tuple[Photos, Photos | None]:
    """Read training photos and held-out ones, with a bar."""
    from tqdm import tqdm

    from maskgit_core.data.photos import pack_photos, packed_size, scan_folder
    from maskgit_core.distributed.group import first_alone

    def progress(files: Sequence[str]) -> Sequence[str]:
        return tqdm(files, desc="reading photos", unit="photo")

    def pack(folder: Path) -> Photos:
        return first_alone(lambda: pack_photos(folder, size, cache_dir=cache, progress=progress))

    train_dir, val_dir = data_folders(args)
    if val_dir is not None:
        # Names first: reading a large folder takes minutes.
        wanted, got = scan_folder(train_dir).classes, scan_folder(val_dir).classes
        if got != wanted:
            raise ValueError(
                f"val must have the classes of the training data, {', '.join(wanted)}; "
                f"got {', '.join(got)}"
            )
    cache = Path(args.cache or args.out)
    size = packed_size(image_size)
    return pack(train_dir), pack(val_dir) if val_dir is not None else None
