"""Long computations in shards on disk: what is finished is never computed again.

A table of rows is known by a key that covers everything its values depend on, so a shard found
under the key can be trusted, and another setting never meets it. The folder can be deleted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maskgit_core.data.fingerprints import hash_of_values
from maskgit_core.files import write_atomically

SHARD_ROWS = 64

logger = logging.getLogger(__name__)

Progress = Callable[[str, Sequence[Any]], Iterable[Any]]


def no_progress(description: str, items: Sequence[Any]) -> Iterable[Any]:
    """Return the items; the place of a progress bar."""
    return items


class TableStore:
    """Tables of rows, each kept as numbered .npy files of `shard_rows` rows.

    Args:
        root: folder of all tables; made when the first shard is written.
        shard_rows: rows that are lost at most by an interruption.
        progress: shows how far a table is, see `Progress`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        shard_rows: int = SHARD_ROWS,
        progress: Progress = no_progress,
    ) -> None:
        self.root = Path(root)
        self.shard_rows = shard_rows
        self.progress = progress

    def rows(
        self, name: str, key: str, count: int, compute: Callable[[range], Tensor], what: str
    ) -> np.ndarray:
        """Return a table, computing only the shards that are not on disk.

        Args:
            name: first part of the folder's name.
            key: covers everything that the values depend on, see `data.fingerprints`.
            count: number of rows, at least 1.
            compute: gives a tensor (len(range), ...) for a range of rows; the same for the same
                range, whatever the count is, so that a longer table starts with a shorter one.
            what: told to `progress`.

        Returns:
            An array (count, ...) of the computed type.

        Raises:
            CheckpointError: the disk is full or not writable; finished shards survive.
        """
        folder = self.root / f"{name}-{hash_of_values(key, self.shard_rows)}"
        starts = range(0, count, self.shard_rows)
        missing = [start for start in starts if self._read(folder, start, count) is None]
        for start in self.progress(what, missing) if missing else ():
            shard = compute(range(start, min(start + self.shard_rows, count)))
            values = shard.detach().cpu().contiguous().numpy()
            write_atomically(self._path(folder, start), partial(_save, values=values))
        return np.concatenate([self._read(folder, start, count) for start in starts])

    @staticmethod
    def _path(folder: Path, start: int) -> Path:
        return folder / f"{start:07d}.npy"

    def _read(self, folder: Path, start: int, count: int) -> np.ndarray | None:
        try:
            values = np.load(self._path(folder, start), mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            path = self._path(folder, start)
            logger.warning("computing %s of %s again: %s", path.name, folder.name, error)
            return None
        wanted = min(self.shard_rows, count - start)
        return values[:wanted] if len(values) >= wanted else None


def _save(path: str, values: np.ndarray) -> None:
    # An open file keeps numpy from adding a suffix to the temporary name.
    with Path(path).open("wb") as file:
        np.save(file, values)
