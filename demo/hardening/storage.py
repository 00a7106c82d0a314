"""Visitors' files on the disk: where they are, how long they stay, how much room they may take.

Room is taken from whoever uses the most of it, so a flood of one visitor's files pushes out that
visitor's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

log = logging.getLogger(__name__)

KEEP_SECONDS = 3 * 3600
MOST_BYTES = 2 * 1024**3
MOST_OF_DISK = 0.5  # of what is free when the server starts
FILE_COST = 16 * 1024  # bytes that a file counts for beside its own: its folder and its names
SWEEP_SECONDS = 60
KEPT = "kept"
NO_ROOM = "There is no room for files on the server just now. Try again in a while."


def kept_folder() -> Path:
    """Where photos in use and results are. It is in Gradio's folder, or Gradio would copy them."""
    return Path(get_upload_folder()) / KEPT


class Files:
    """Who owns which files, without a look at the disk.

    Args:
        most_bytes: that all files together may take; a part of the disk if not given.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self._most = most_bytes
        self._lock = threading.Lock()
        self._of: dict[str, OrderedDict[Path, int]] = {}
        self._owners: dict[Path, str] = {}
        self._costs: dict[str, int] = {}

    @property
    def total(self) -> int:
        """What all files cost, in bytes."""
        return sum(self._costs.values())

    @property
    def most_bytes(self) -> int:
        """What they may cost."""
        if self._most is None:
            folder = Path(get_upload_folder())
            place = next((p for p in (folder, *folder.parents) if p.is_dir()), Path("/"))
            free = shutil.disk_usage(place).free
            self._most = min(MOST_BYTES, int(MOST_OF_DISK * free))
        return self._most

    def add(self, owner: str, path: Path) -> None:
        """Note a file that was just written, and make room for what comes next."""
        with contextlib.suppress(OSError):
            cost = path.stat().st_size + FILE_COST
            with self._lock:
                self._forget(path)
                self._of.setdefault(owner, OrderedDict())[path] = cost
                self._owners[path] = owner
                self._costs[owner] = self._costs.get(owner, 0) + cost
        self.make_room(owner, 0)

    def forget(self, path: Path) -> None:
        """A file is gone."""
        with self._lock:
            self._forget(path)

    def make_room(self, owner: str, size: int) -> None:
        """Remove the oldest files of who has the most, until so many bytes of an owner fit."""
        while True:
            with self._lock:
                costs = {**self._costs, owner: self._costs.get(owner, 0) + size}
                if sum(costs.values()) <= self.most_bytes or not self._owners:
                    return
                largest = max(self._of, key=lambda name: costs.get(name, 0))
                path = next(iter(self._of[largest]))
                self._forget(path)
            _remove(path)

    def give_back(self, size: int) -> None:
        """The disk is full: remove files of who has the most until so many bytes are free."""
        freed = 0
        while freed < size:
            with self._lock:
                if not self._owners:
                    return
                largest = max(self._of, key=lambda name: self._costs.get(name, 0))
                path = next(iter(self._of[largest]))
                freed += self._of[largest][path]
                self._forget(path)
            _remove(path)

    def _forget(self, path: Path) -> None:
        owner = self._owners.pop(path, None)
        if owner is None:
            return
        self._costs[owner] -= self._of[owner].pop(path)
        if not self._of[owner]:
            del self._of[owner], self._costs[owner]


FILES = Files()  # of this process, as the folder is


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):  # it holds others
        path.parent.rmdir()


def sweep(folder: Path, *, keep_seconds: float = KEEP_SECONDS, now: float | None = None) -> int:
    """Remove what is too old.

    Args:
        folder: everything in it is fair game.
        keep_seconds: since a file was last written.
        now: seconds since the epoch; the clock's if not given.

    Returns:
        The number of bytes that are left.
    """
    now = time.time() if now is None else now
    left = 0
    folders: list[Path] = []
    for place, names, file_names in os.walk(folder):
        folders += [Path(place) / name for name in names]
        for name in file_names:
            path = Path(place) / name
            with contextlib.suppress(OSError):  # gone in the meantime
                facts = path.lstat()
                if now - facts.st_mtime <= keep_seconds:
                    left += facts.st_size
                    continue
                FILES.forget(path)
                path.unlink()
    for inner in reversed(folders):
        with contextlib.suppress(OSError):  # not empty
            # One that was made a moment ago waits for its file.
            if now - inner.lstat().st_mtime > SWEEP_SECONDS:
                inner.rmdir()
    return left


@contextlib.asynccontextmanager
async def swept(_: Any) -> AsyncIterator[None]:
    """Sweep Gradio's folder now and then while the server runs; a lifespan for `launch`.

    Only a folder that was chosen for this page (GRADIO_TEMP_DIR): the usual one may hold the files
    of other programs.
    """

    async def work() -> None:
        while True:
            try:
                await asyncio.to_thread(sweep, Path(get_upload_folder()))
            except Exception:
                log.exception("visitors' files could not be swept")
            await asyncio.sleep(SWEEP_SECONDS)

    task = asyncio.create_task(work()) if os.environ.get("GRADIO_TEMP_DIR") else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
