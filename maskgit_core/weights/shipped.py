"""The checkpoint that comes with the code, in a source tree and in an installed package."""

from __future__ import annotations

from pathlib import Path

# How a user names it, whatever the working directory is.
SHIPPED_NAME = "checkpoints/scenes-flowers"


def shipped_folder() -> Path:
    """Return the folder of the checkpoint that ships; it may be missing.

    A wheel holds it inside this package, a source tree beside it.
    """
    package = Path(__file__).parents[1]
    installed = package / SHIPPED_NAME
    return installed if installed.is_dir() else package.parent / SHIPPED_NAME
