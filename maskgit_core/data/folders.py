"""Which folder holds the photos to learn from, and which those that are held out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maskgit_core.class_names import match_classes

TRAIN = "train"
# Usual names of held-out photos; the first that is there is taken.
HELD_OUT = ("val", "validation", "valid", "test")
LISTED = 12


class DataFolders(NamedTuple):
    """Two folders with one folder per class each; None for what is not there.

    Attributes:
        train: photos that a model learns from.
        val: held-out photos.
    """

    train: Path | None
    val: Path | None


def folders_in(folder: Path) -> list[Path]:
    """Return the folders inside of one, but for those whose names begin with a dot, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def split_folders(data: str | os.PathLike[str], argument: str = "data") -> DataFolders:
    """Return the folders `train` and `val` (or another name of `HELD_OUT`) inside of data.

    A folder of such a name, in any case, is a class like the others where there are others beside
    it, unless it holds folders itself; and without `train`, unless they are named like the others.

    Raises:
        ValueError: data is not a directory; the message names the argument.
    """
    data = Path(data)
    if not data.is_dir():
        raise ValueError(f"{argument} must be a directory with one folder per class; got {data}")
    inside = folders_in(data)
    named = {}
    for name in (TRAIN, *HELD_OUT):
        same = [path for path in inside if path.name.casefold() == name]
        if same:
            named[name] = next((path for path in same if path.name == name), same[0])
    if len(named) < len(inside):
        named = {name: folder for name, folder in named.items() if folders_in(folder)}
        if TRAIN not in named:
            named = {name: f for name, f in named.items() if _names(f) & _names(data)}
    return DataFolders(named.get(TRAIN), next((named[n] for n in HELD_OUT if n in named), None))


def training_folders(
    data: str | os.PathLike[str], val: str | os.PathLike[str] | None = None
) -> DataFolders:
    """Return where a training finds its photos: `train` is never None.

    Args:
        data: one folder per class, or `train/` beside held-out photos, see `split_folders`.
        val: held-out photos in another place, one folder per class or inside `val/`.

    Raises:
        ValueError: a directory is missing, or held-out photos lie among the classes.
    """
    split = split_folders(data)
    held_out = split.val if val is None else split_folders(val, "val").val or Path(val)
    if split.train is not None:
        return DataFolders(split.train, held_out)
    if split.val is not None and folders_in(split.val):
        raise ValueError(
            f"data must hold {TRAIN}/ beside {split.val.name}/; {data} does not: put the classes "
            f"to learn from into {TRAIN}/"
        )
    return DataFolders(Path(data), None if val is None else held_out)


def evaluation_folders(
    data: str | os.PathLike[str],
    train: str | os.PathLike[str] | None = None,
    val: str | os.PathLike[str] | None = None,
) -> DataFolders:
    """Return where an evaluation finds its photos: `val` is never None.

    Args:
        data: holds `train/` and `val/`, see `split_folders`; or `val/` alone; or one folder per
            class, which are then the held-out photos, or with `val` those of training.
        train: training photos in another place, one folder per class or inside `train/`.
        val: held-out photos in another place, one folder per class or inside `val/`.

    Raises:
        ValueError: a directory is missing, or data holds `train/` without held-out photos.
    """
    if val is not None:
        found = training_folders(data, val)
    else:
        found = split_folders(data)
        if found.train is not None and found.val is None:
            raise ValueError(
                f"data must hold {HELD_OUT[0]}/ beside {found.train.name}/; {data} holds "
                f"{found.train.name}/ only"
            )
        found = DataFolders(found.train, found.val or Path(data))
    if train is not None:
        found = DataFolders(split_folders(train, "train").train or Path(train), found.val)
    return found


def labels_of(
    names: Sequence[str], classes: Sequence[str], *, where: Path, whose: str, argument: str = "data"
) -> list[int]:
    """Return the label of each class folder, found as `class_names.match_classes` does.

    Args:
        names: of the folders in `where`.
        classes: names, label by label.
        whose: whose classes these are, for the message.
        argument: what names the folder, for the message.

    Raises:
        ValueError: folders that are no class, named with those that are, or that could be two.
    """
    try:
        labels = match_classes(names, classes)
    except ValueError as error:
        raise ValueError(f"{argument} must hold one folder per class; in {where} {error}") from None
    unknown = [name for name, label in zip(names, labels, strict=True) if label is None]
    if unknown:
        raise ValueError(
            f"{argument} holds classes that {whose} does not know: {shortened(unknown)} "
            f"(in {where}); it knows {shortened(classes)}"
        )
    return [label for label in labels if label is not None]


def shortened(names: Sequence[str], most: int = LISTED) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folders_in(folder)}
