"""The names of the 1,000 ImageNet classes, in the order of their labels."""

from __future__ import annotations

from pathlib import Path

IMAGENET_CLASSES = 1000
NAMES_FILE = Path(__file__).with_name("imagenet_classes.txt")


def imagenet_classes() -> list[str]:
    """Return the 1,000 short names, each once; entry i names label i."""
    return NAMES_FILE.read_text(encoding="utf-8").splitlines()
