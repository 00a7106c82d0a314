"""Photos in one folder a class, packed once; batches whose order depends only on (seed, step).

Nothing here keeps a position: the batch of any step can be drawn at any time, so a run that was
stopped goes on exactly where it was.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from maskgit_core.class_names import normal_name
from maskgit_core.data.decoder import STORED, patient_decoder
from maskgit_core.data.folders import folders_in
from maskgit_core.data.images import crop_to_square, flatten_alpha, turn_upright
from maskgit_core.data.kinds import PHOTO_SUFFIXES
from maskgit_core.files import write_all_atomically
from maskgit_core.pixels import from_uint8

# Kinds that cannot be read here too: each of their files is named as left out, with the reason.
IMAGE_SUFFIXES = PHOTO_SUFFIXES
# Scenes of 100 pixels give crops of 96: a shift of up to 4 % without an enlargement.
CROP_MARGIN = 1 / 24
ZERO_EPOCHS = 2**31
DECODED_AT_ONCE = 64
MOST_THREADS = 16
PACKING = 2  # counts the ways in which photos were packed: another one is another cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhotoFolder:
    """The readable files of a one-folder-per-class directory.

    Attributes:
        root: the directory.
        classes: folder names in alphabetical order, accents in one form (see `class_names`); a
            label is a place in this list.
        files: paths relative to root, class by class.
        labels: the label of each file.
    """

    root: Path
    classes: list[str]
    files: list[str]
    labels: list[int]


@dataclass(frozen=True)
class Photos:
    """Packed photos.

    Attributes:
        pixels: uint8 (num, S, S, 3), RGB; S is a little above the training size when packed with
            a margin for crops.
        labels: int64 (num,).
        classes: names, label by label.
        skipped: files that could not be read.
    """

    pixels: np.ndarray
    labels: Tensor
    classes: list[str]
    skipped: list[str]


@dataclass(frozen=True)
class Part:
    """One of the nearly equal parts that a batch is split into.

    Attributes:
        index: its place, in [0, count).
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    def of(self, num_items: int) -> slice:
        """Return the places of this part among num_items."""
        return slice(*(num_items * place // self.count for place in (self.index, self.index + 1)))


WHOLE = Part()


def scan_folder(root: str | os.PathLike[str]) -> PhotoFolder:
    """List the image files of a one-folder-per-class directory, nested folders included.

    Raises:
        ValueError: the directory is missing, has no class folder, or holds no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"data must be a directory with one folder per class; {root} is not one")
    classes: dict[str, list[Path]] = {}
    for folder in folders_in(root):
        files = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
        if files:
            classes.setdefault(normal_name(folder.name), []).extend(sorted(files))
    if not classes:
        raise ValueError(
            f"data must hold one folder per class with images inside; found none in {root}"
        )
    names = sorted(classes)
    return PhotoFolder(
        root,
        names,
        [str(path.relative_to(root)) for name in names for path in classes[name]],
        [label for label, name in enumerate(names) for _ in classes[name]],
    )


def pack_photos(
    root: str | os.PathLike[str],
    size: int,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[Sequence[str]], Iterable[str]] = lambda files: files,
) -> Photos:
    """Decode every photo once to its centre square at `size` pixels.

    Args:
        root: one folder per class.
        size: pixels a side.
        cache_dir: where the packed array is kept and memory-mapped from, and packed again where
            a photo has changed or the file is damaged; None keeps it in memory.
        progress: wraps the list of files, to show how far decoding is.

    Returns:
        The photos; unreadable files are named in `skipped` and in a log warning, and left out.

    Raises:
        ValueError: as `scan_folder`, or no file could be read.
        CheckpointError: the packed array cannot be written, the disk is full.
    """
    folder = scan_folder(root)
    stamp = [
        (name, (folder.root / name).stat().st_size, (folder.root / name).stat().st_mtime_ns)
        for name in folder.files
    ]
    made_from = [PACKING, size, folder.labels, stamp]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    packed = Path(cache_dir) / f"photos-{size}-{key}" if cache_dir is not None else None
    if packed is not None:
        photos = _read_packed(packed, size, folder.classes)
        if photos is not None:
            return photos

    skipped: dict[str, str] = {}
    decoded = _decoded(folder, size, progress, skipped)
    first = next(decoded, None)
    if first is None:
        raise ValueError(f"none of the {len(folder.files)} images in {root} could be read")
    decoded = itertools.chain([first], decoded)
    labels: list[int] = []
    if packed is not None:
        pixels = _write_packed(packed, (len(folder.files), size, size, 3), decoded, labels, skipped)
    else:
        # One array from the start: a list of photos and its stack would take the memory twice.
        pixels = np.empty((len(folder.files), size, size, 3), dtype=np.uint8)
        for square, label in decoded:
            pixels[len(labels)] = square
            labels.append(label)
        pixels = pixels[: len(labels)]
    return Photos(pixels, torch.tensor(labels, dtype=torch.int64), folder.classes, list(skipped))


def _decoded(
    folder: PhotoFolder,
    size: int,
    progress: Callable[[Sequence[str]], Iterable[str]],
    skipped: dict[str, str],
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the readable photos in order, uint8 (size, size, 3), with their labels."""

    threads = min(MOST_THREADS, os.cpu_count() or 1)
    decoder = patient_decoder(threads)

    def decode(name: str) -> np.ndarray | Exception:
        try:
            photo = decoder.open((folder.root / name).read_bytes(), form=STORED)
            return np.asarray(crop_to_square(flatten_alpha(turn_upright(photo)), size))
        except (ValueError, OSError) as error:
            return error

    names, labels = iter(progress(folder.files)), iter(folder.labels)
    with closing(decoder), ThreadPoolExecutor(threads) as pool:
        while some := list(itertools.islice(names, DECODED_AT_ONCE)):
            # Decoding leaves Python's lock to the other threads.
            for name, label, found in zip(some, labels, pool.map(decode, some), strict=False):
                if isinstance(found, Exception):
                    skipped[name] = str(found)
                    logger.warning("skipped %s: %s", name, found)
                else:
                    yield found, label


def _read_packed(packed: Path, size: int, classes: list[str]) -> Photos | None:
    """Return what was packed earlier; None where it is missing or damaged."""
    try:
        index = json.loads(packed.with_suffix(".json").read_text(encoding="utf-8"))
        pixels = np.load(packed.with_suffix(".npy"), mmap_mode="r")
        labels = torch.tensor(index["labels"], dtype=torch.int64)
        skipped = {str(name): str(reason) for name, reason in dict(index["skipped"]).items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        logger.warning("packing the photos again, %s is damaged: %s", packed.name, error)
        return None
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), size, size, 3):
        logger.warning("packing the photos again, %s does not fit", packed.name)
        return None
    for name, reason in skipped.items():
        logger.warning("skipped %s: %s", name, reason)
    return Photos(pixels, labels, classes, list(skipped))


def _write_packed(
    packed: Path,
    shape: tuple[int, ...],
    decoded: Iterable[tuple[np.ndarray, int]],
    labels: list[int],
    skipped: dict[str, str],
) -> np.ndarray:
    """Write photos one after another, whatever the memory; return them as mapped from the file."""

    def header(file: BinaryIO, count: int) -> None:
        facts = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape[1:])}
        np.lib.format.write_array_header_1_0(file, facts)

    def write_pixels(path: str) -> None:
        with Path(path).open("wb") as file:
            header(file, shape[0])
            for square, label in decoded:
                file.write(square.tobytes())
                labels.append(label)
            # How many could be read is known now; numpy leaves room for the number.
            file.seek(0)
            header(file, len(labels))

    def write_index(path: str) -> None:
        index = {"labels": labels, "skipped": skipped}
        Path(path).write_text(json.dumps(index), encoding="utf-8")

    write_all_atomically(
        {packed.with_suffix(".npy"): write_pixels, packed.with_suffix(".json"): write_index}
    )
    return np.load(packed.with_suffix(".npy"), mmap_mode="r")


def packed_size(image_size: int) -> int:
    """Return the side, in pixels, at which training photos are packed to leave room for crops."""
    return image_size + round(image_size * CROP_MARGIN)


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """Return the random numbers of one step: the same for the same (seed, step, stream)."""
    mixed = hashlib.sha256(f"{seed}/{step}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(mixed[:8], "little") >> 1)


def batch_indices(num_items: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Return int64 (batch_size,): the items of a step, each once an epoch in a shuffled order.

    An epoch ends inside a batch where num_items is not a multiple of batch_size.
    """
    places = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs, places = places // num_items, places % num_items
    chosen = torch.empty(batch_size, dtype=torch.int64)
    for epoch in epochs.unique().tolist():
        permutation = _epoch_order(num_items, seed, epoch)
        chosen[epochs == epoch] = permutation[places[epochs == epoch]]
    return chosen


@functools.lru_cache(maxsize=2)  # a million items are shuffled once an epoch, not once a step
def _epoch_order(num_items: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(num_items, generator=step_generator(seed, ZERO_EPOCHS + epoch))


def augmented_batch(
    photos: Photos,
    indices: Tensor,
    image_size: int,
    generator: torch.Generator,
    part: Part = WHOLE,
    device: torch.device | None = None,
) -> Tensor:
    """Return float32 (B, 3, S, S) in [-1, 1]: a random crop of each photo, half of them flipped.

    With a part only its images are made, as they are in the whole batch; on a device, if given.
    """
    slack = photos.pixels.shape[1] - image_size
    shifts = torch.randint(0, slack + 1, (len(indices), 2), generator=generator).tolist()
    flips = (torch.rand(len(indices), generator=generator) < 0.5).tolist()
    crops = []
    own = part.of(len(indices))
    for index, (top, left), flip in zip(
        indices[own].tolist(), shifts[own], flips[own], strict=True
    ):
        crop = photos.pixels[index, top : top + image_size, left : left + image_size]
        crops.append(crop[:, ::-1] if flip else crop)
    return from_uint8(np.stack(crops), device)


def centre_batch(photos: Photos, indices: Tensor, image_size: int) -> Tensor:
    """Return float32 (B, 3, S, S) in [-1, 1]: the centre crop of each photo."""
    start = (photos.pixels.shape[1] - image_size) // 2
    stop = start + image_size
    return from_uint8(photos.pixels[indices.numpy()][:, start:stop, start:stop])
