"""What is odd about a folder of photos, in sentences, before minutes of reading."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from maskgit_core.data.folders import folders_in, shortened
from maskgit_core.data.photos import IMAGE_SUFFIXES, PhotoFolder, Photos, scan_folder

FEW_PHOTOS = 50


def _images(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]


def check_data(root: Path) -> tuple[PhotoFolder, list[str]]:
    """List the classes of a folder and what its owner should know.

    Returns:
        (files, warnings as whole sentences).

    Raises:
        ValueError: no class folder, photos side by side without classes, or a folder of classes
            inside a single folder.
    """
    if not root.is_dir():
        raise ValueError(f"data must be a directory with one folder per class; {root} is not one")
    loose = _images(root)
    try:
        found = scan_folder(root)
    except ValueError:
        if not loose:
            raise
        raise ValueError(
            f"data must hold one folder per class; the {len(loose)} photos in {root} lie side by "
            "side: put those of each class into a folder with its name"
        ) from None
    warnings = []
    if loose:
        warnings.append(f"{_photos(len(loose))} directly in {root} belong to no class: left out.")
    counts = Counter(found.labels)
    if len(found.classes) == 1:
        _check_nested(root / Path(found.files[0]).parts[0])
        warnings.append(
            f"There is one class only, {found.classes[0]}: the model will have nothing to choose "
            "from, and guidance little to work with."
        )
    spellings = Counter(name.casefold() for name in found.classes)
    alike = [name for name in found.classes if spellings[name.casefold()] > 1]
    if alike:
        warnings.append(f"{shortened(alike)} differ in case only; each is a class of its own.")
    single = [name for label, name in enumerate(found.classes) if counts[label] == 1]
    if single:
        warnings.append(f"One photo only: {shortened(single)}. The model will repeat it.")
    if len(found.files) < FEW_PHOTOS:
        warnings.append(
            f"{_photos(len(found.files))} in all: the model will learn them by heart and show "
            "little else."
        )
    return found, warnings


def _check_nested(only: Path) -> None:
    """Raise ValueError where the single class is a folder that holds the real class folders."""
    if _images(only):
        return
    inner = [folder.name for folder in folders_in(only) if any(folder.rglob("*"))]
    if len(inner) > 1:
        raise ValueError(
            f"data must hold one folder per class; {only.parent} holds the single folder "
            f"{only.name}, and that holds {shortened(inner)}: if these are the classes, give {only}"
        )


def check_readable(photos: Photos) -> list[str]:
    """Return a warning about files that could not be read.

    Raises:
        ValueError: none of a class's photos could be read.
    """
    seen = set(photos.labels.tolist())
    empty = [name for label, name in enumerate(photos.classes) if label not in seen]
    if empty:
        raise ValueError(f"no photo of these classes can be read: {shortened(empty)}")
    if not photos.skipped:
        return []
    return [f"{_photos(len(photos.skipped))} could not be read: {shortened(photos.skipped)}."]


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"
