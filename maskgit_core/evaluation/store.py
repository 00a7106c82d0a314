"""Long computations in parts on disk: what is finished is never computed again.

A table of rows is known by a key that covers everything its values depend on, so a part found
under the key can be trusted, and another setting never meets it. The folder can be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from maskgit_core.files import write_atomically

PART_ROWS = 64
HASHED_ROWS = 256

Progress = Callable[[str, Sequence[Any]], Iterable[Any]]


def no_progress(description: str, items: Sequence[Any]) -> Iterable[Any]:
    """Return the items; the place of a progress bar."""
    return items


def key_of(*parts: Any) -> str:
    """Return a short hash of JSON values."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_of_rows(rows: np.ndarray) -> str:
    """Return a short hash of the values, type and shape of an array, read a few rows at a time."""
    digest = hashlib.sha256(f"{rows.dtype} {rows.shape}".encode())
    for start in range(0, len(rows), HASHED_ROWS):
        digest.update(np.ascontiguousarray(rows[start : start + HASHED_ROWS]).data)
    return digest.hexdigest()[:16]


def hash_of_networks(*networks: nn.Module) -> str:
    """Return a short hash of the names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for network in networks:
        for name, tensor in network.state_dict().items():
            values = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{name} {values.dtype} {values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()[:16]


class PartStore:
    """Tables of rows, each kept as numbered .npy files of `part_rows` rows.

    Args:
        root: folder of all tables; made when the first part is written.
        part_rows: rows that are lost at most by an interruption.
        progress: shows how far a table is, see `Progress`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        part_rows: int = PART_ROWS,
        progress: Progress = no_progress,
    ) -> None:
        self.root = Path(root)
        self.part_rows = part_rows
        self.progress = progress

    def rows(
        self, name: str, key: str, count: int, compute: Callable[[range], Tensor], what: str
    ) -> np.ndarray:
        """Return a table, computing only the parts that are not on disk.

        Args:
            name: first part of the folder's name.
            key: covers everything that the values depend on, see `key_of`.
            count: number of rows, at least 1.
            compute: gives a tensor (len(range), ...) for a range of rows; the same for the same
                range, whatever the count is, so that a longer table starts with a shorter one.
            what: told to `progress`.

        Returns:
            An array (count, ...) of the computed type.

        Raises:
            CheckpointError: the disk is full or not writable; finished parts survive.
        """
        folder = self.root / f"{name}-{key_of(key, self.part_rows)}"
        starts = range(0, count, self.part_rows)
        missing = [start for start in starts if self._read(folder, start, count) is None]
        for start in self.progress(what, missing) if missing else ():
            part = compute(range(start, min(start + self.part_rows, count)))
            values = part.detach().cpu().contiguous().numpy()
            write_atomically(self._path(folder, start), lambda path, v=values: _save(path, v))
        return np.concatenate([self._read(folder, start, count) for start in starts])

    @staticmethod
    def _path(folder: Path, start: int) -> Path:
        return folder / f"{start:07d}.npy"

    def _read(self, folder: Path, start: int, count: int) -> np.ndarray | None:
        try:
            values = np.load(self._path(folder, start), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None  # missing or cut short: computed again
        wanted = min(self.part_rows, count - start)
        return values[:wanted] if len(values) >= wanted else None


def _save(path: str, values: np.ndarray) -> None:
    # An open file keeps numpy from adding a suffix to the temporary name.
    with open(path, "wb") as file:
        np.save(file, values)
