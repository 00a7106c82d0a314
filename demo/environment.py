"""What the environment tells Gradio, the Hub's client and torch; set before they are imported."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

SPACE_STORAGE = "/data"  # where a Space with persistent storage mounts it
# Programs that oneDNN and torch's layer above it (LRU_CACHE_CAPACITY) each keep, one for each size
# of a product. Small blocks that live long between large ones that come and go, they keep the heap
# from being used again: with batches of all sizes their usual 1,024 take minutes to fill and
# hundreds of megabytes. To make a forgotten one again takes below a millisecond.
MATRIX_PROGRAMS = "64"


def prepare_environment(
    environ: MutableMapping[str, str] = os.environ, storage: str = SPACE_STORAGE
) -> None:
    """Keep Gradio off the network, its files and the Hub's in places of their own, memory level.

    Whatever is set already stays. HF_HUB_OFFLINE is left to the user: nothing asks the Hub unless
    a published model is wanted.

    Args:
        environ: the variables to fill in.
        storage: folder that outlives a restart of a Space.
    """
    environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    environ.setdefault("HF_HUB_VERBOSITY", "error")  # failed tries are told in our words
    environ.setdefault("GRADIO_CACHE_EXAMPLES", "false")
    environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", MATRIX_PROGRAMS)
    environ.setdefault("LRU_CACHE_CAPACITY", MATRIX_PROGRAMS)
    if "GRADIO_TEMP_DIR" not in environ:
        environ["GRADIO_TEMP_DIR"] = str(private_folder())
    # Models that were fetched once are still there after a Space's restart.
    on_space = bool(environ.get("SPACE_ID"))
    if on_space and Path(storage).is_dir() and os.access(storage, os.W_OK):
        environ.setdefault("HF_HOME", str(Path(storage) / ".huggingface"))


def private_folder() -> Path:
    """A folder for visitors' files that only this user can read, the same after a restart.

    The same, so that what a killed process left behind is found and removed. Where something else
    is in its place, such as another user's link, it is a new one.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"maskgit-page-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        mine = not folder.is_symlink() and getattr(status, "st_uid", user) == user
        if mine and (os.name == "nt" or status.st_mode & 0o077 == 0):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="maskgit-page-"))


def load_spaces() -> Any | None:
    """The package `spaces` of Hugging Face ZeroGPU; None where it is not installed.

    It must be loaded before torch.
    """
    try:
        return importlib.import_module("spaces")
    except ImportError:
        return None
