"""Visitors' files on the disk: where they are, how long they stay, how much room they may take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

log = logging.getLogger(__name__)

KEEP_SECONDS = 3 * 3600
MOST_BYTES = 2 * 1024**3
SWEEP_SECONDS = 60
KEPT = "kept"
NO_ROOM = "There is no room for files on the server just now. Try again in a while."


def kept_folder() -> Path:
    """Where photos in use and results are. It is in Gradio's folder, or Gradio would copy them."""
    return Path(get_upload_folder()) / KEPT


def sweep(
    folder: Path,
    *,
    keep_seconds: float = KEEP_SECONDS,
    most_bytes: int = MOST_BYTES,
    now: float | None = None,
) -> int:
    """Remove what is too old, then the oldest until the rest is small enough.

    Args:
        folder: everything in it is fair game.
        keep_seconds: since a file was last written.
        most_bytes: that may be left, all files together.
        now: seconds since the epoch; the clock's if not given.

    Returns:
        The number of bytes that are left.
    """
    now = time.time() if now is None else now
    files: list[tuple[float, int, Path]] = []
    folders: list[Path] = []
    for place, names, file_names in os.walk(folder):
        folders += [Path(place) / name for name in names]
        for name in file_names:
            path = Path(place) / name
            with contextlib.suppress(OSError):  # gone in the meantime
                facts = path.lstat()
                files.append((facts.st_mtime, facts.st_size, path))
    files.sort(key=lambda file: file[0])
    left = sum(size for _, size, _ in files)
    for changed, size, path in files:
        if now - changed <= keep_seconds and left <= most_bytes:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        left -= size
    for empty in reversed(folders):
        with contextlib.suppress(OSError):  # not empty
            # One that was made a moment ago waits for its file.
            if now - empty.lstat().st_mtime > SWEEP_SECONDS:
                empty.rmdir()
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
