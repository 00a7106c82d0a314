"""Photos between the visitor's file and the square of the editor: open, fit, read the mask, keep.

The editor always shows a square of `EDITOR_SIDE` pixels; the photo keeps its own size beside it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskgit_core.images import flatten_alpha, load_image

from .settings import RequestError

EDITOR_SIDE = 512  # must equal the editor's canvas: other sizes shift painted masks (Gradio 6.31)
MARGIN = (238, 240, 244)
KEEP_SECONDS = 3 * 3600
_MOST_DIFFERENCE = 6.0  # mean levels; the browser may recompress what it sends back


@dataclass(frozen=True)
class Placement:
    """Where a photo lies in the editor's square: left, top, width, height in its pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The same as (left, top, right, bottom)."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def open_photo(source: Any) -> Image.Image:
    """Open a photo of any common kind, upright, RGB or RGBA.

    Args:
        source: a path, the bytes of a file, or a PIL image.

    Raises:
        RequestError: no image, cut short, or too large; one sentence.
    """
    try:
        return load_image(source, keep_alpha=True)
    except ValueError as error:
        text = str(error)
        text = "The file " + text.removeprefix("image ") if text.startswith("image ") else text
        raise RequestError(text.rstrip(".") + ".") from None


def place(size: tuple[int, int], side: int = EDITOR_SIDE) -> Placement:
    """Fit a photo of (width, height) pixels into the middle of a square, as large as it goes."""
    scale = side / max(size)
    width, height = (max(1, round(length * scale)) for length in size)
    return Placement((side - width) // 2, (side - height) // 2, width, height)


def editor_square(photo: Image.Image) -> Image.Image:
    """The photo as the editor shows it: RGB, `EDITOR_SIDE` pixels a side, margins in grey."""
    spot = place(photo.size)
    square = Image.new("RGB", (EDITOR_SIDE, EDITOR_SIDE), MARGIN)
    shown = flatten_alpha(photo).resize((spot.width, spot.height), Image.Resampling.LANCZOS)
    square.paste(shown, (spot.left, spot.top))
    return square


def editor_value(photo: Image.Image, mask: np.ndarray | None = None) -> dict[str, Any]:
    """What to give the editor so that it shows the photo, with a mask painted or without.

    Args:
        photo: any size.
        mask: bool (EDITOR_SIDE, EDITOR_SIDE), or None.
    """
    square = editor_square(photo)
    layers = []
    if mask is not None and mask.any():
        layer = np.zeros((*mask.shape, 4), dtype=np.uint8)
        layer[mask] = (*BRUSH_RGB, BRUSH_ALPHA)
        layers = [Image.fromarray(layer)]
    return {"background": square, "layers": layers, "composite": None}


BRUSH_RGB = (255, 0, 122)
BRUSH_ALPHA = 153


def painted_square(value: Mapping[str, Any] | None) -> np.ndarray | None:
    """What was painted in the editor, all layers together: bool (H, W), or None without layers."""
    painted: np.ndarray | None = None
    for layer in (value or {}).get("layers") or []:
        if layer is None:
            continue
        alpha = np.asarray(layer.convert("RGBA").getchannel("A")) > 0
        painted = alpha if painted is None or painted.shape != alpha.shape else painted | alpha
    return painted


def mask_for_photo(painted: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Carry a mask from the editor's square to the photo.

    Args:
        painted: bool (EDITOR_SIDE, EDITOR_SIDE); paint on the margins is cut off.
        size: (width, height) of the photo.

    Returns:
        bool (height, width); any paint inside the photo leaves at least one pixel.
    """
    spot = place(size)
    left, top, right, bottom = spot.box
    inside = painted[top:bottom, left:right]
    smooth = Image.fromarray((inside * np.uint8(255)).astype(np.uint8))
    # Area-averaged when shrinking, smooth when growing: the edge stays where it was painted.
    kind = Image.Resampling.BOX if size[0] < spot.width else Image.Resampling.BILINEAR
    mask = np.asarray(smooth.resize(size, kind)) >= 128
    if inside.any() and not mask.any():
        mask = np.asarray(smooth.resize(size, Image.Resampling.BOX)) > 0
    return mask


def same_picture(background: Image.Image, photo: Image.Image) -> bool:
    """Whether the editor's background is the square of this photo and not a new upload."""
    if background.size != (EDITOR_SIDE, EDITOR_SIDE):
        return False
    seen = np.asarray(flatten_alpha(background.convert("RGBA")), dtype=np.float32)
    ours = np.asarray(editor_square(photo), dtype=np.float32)
    return float(np.abs(seen - ours).mean()) < _MOST_DIFFERENCE


class PhotoStore:
    """Photos and results of the running sessions as files, so that no session holds them in memory.

    Args:
        folder: where to write; a folder of its own in the system's place for temporary files if
            not given. Files older than `KEEP_SECONDS` are removed when new ones are written.
    """

    def __init__(self, folder: str | os.PathLike | None = None) -> None:
        self._folder = Path(folder or tempfile.mkdtemp(prefix="maskgit-page-"))

    def save(self, image: Image.Image, stem: str = "photo") -> str:
        """Write a lossless PNG and return its path."""
        return self.save_bytes(lambda path: image.save(path, "PNG", compress_level=1), stem, "png")

    def save_bytes(self, write: Any, stem: str, suffix: str) -> str:
        """Let `write(path)` write a new file and return its path; the file's name is `stem`."""
        self._prune()
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        path = folder / f"{stem}.{suffix}"
        write(path)
        return str(path)

    def load(self, path: str) -> Image.Image:
        """Read a photo that `save` wrote.

        Raises:
            RequestError: it is gone.
        """
        try:
            with Image.open(path) as image:
                image.load()
                return image
        except OSError:
            raise RequestError("This photo is no longer kept here. Open it again.") from None

    def _prune(self) -> None:
        now = time.time()
        for folder in self._folder.glob("*"):
            try:
                if now - folder.stat().st_mtime > KEEP_SECONDS:
                    for file in folder.iterdir():
                        file.unlink()
                    folder.rmdir()
            except OSError:  # another session removed it first
                continue
