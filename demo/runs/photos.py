"""Photos between the visitor's file and the page: open, show, read the mask, keep.

The page shows a photo at most `SHOWN_SIDE` pixels a side; the photo itself keeps its size.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from demo.hardening.gate import MAX_FILE_BYTES
from demo.hardening.storage import FILES, KEEP_SECONDS, NO_ROOM, kept_folder
from demo.runs import render
from demo.serving.fairness import current_visitor
from demo.settings import RequestError
from maskgit_core.data.colour import rgb_profile, to_srgb
from maskgit_core.data.decoder import Decoder
from maskgit_core.data.image_files import Recipe, write_image
from maskgit_core.data.images import flatten_alpha, load_image

log = logging.getLogger(__name__)

SHOWN_SIDE = 512
MAX_MASK_TEXT = 2_000_000  # characters; a mask of the shown size takes a few thousand
MAX_IMAGE_TEXT = MAX_FILE_BYTES * 4 // 3 + 64  # characters; the largest file as base64
DECODER = Decoder()  # of this process; its children start when they are needed


def open_photo(source: Any) -> Image.Image:
    """Open a photo of any common kind: upright, RGB or RGBA in the colours of the web.

    Nothing else of the file stays: neither where nor with what it was taken.

    Args:
        source: a path, the bytes of a file, or a PIL image.

    Raises:
        RequestError: no image, cut short, or too large; one sentence.
    """
    with file_errors():
        if isinstance(source, bytes):
            return DECODER.open(source, current_visitor())
        photo = load_image(source, keep_alpha=True)
    photo = to_srgb(photo, rgb_profile(photo))
    photo.info.clear()
    return photo


@contextmanager
def file_errors() -> Iterator[None]:
    """Turn what the core says of a file that cannot be opened into a sentence for the visitor.

    Raises:
        RequestError: instead of ValueError.
    """
    try:
        yield
    except ValueError as error:
        text = str(error)
        text = "The file " + text.removeprefix("image ") if text.startswith("image ") else text
        raise RequestError(text.rstrip(".") + ".") from None


def take_upload(path: Any, *, most: int = MAX_FILE_BYTES) -> bytes:
    """Content of a file that was just uploaded; the file itself is gone afterwards.

    Args:
        path: as the client sent it.
        most: bytes that it may have.

    Raises:
        RequestError: another file of this machine, kept photos and results included; one that was
            taken before; one that is too large.
    """
    folder = Path(get_upload_folder()).resolve()
    try:
        found = Path(path if isinstance(path, str | os.PathLike) else "").resolve()
        inside = found.is_relative_to(folder) and not found.is_relative_to(kept_folder().resolve())
        if not inside or not found.is_file():
            raise RequestError("That is not an uploaded file. Upload it again.")
        with found.open("rb") as file:
            content = file.read(most + 1)
        found.unlink(missing_ok=True)
        FILES.forget(found)
    except (OSError, RuntimeError) as error:
        raise RequestError("The uploaded file cannot be read. Upload it again.") from error
    except ValueError as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError("That is not an uploaded file. Upload it again.") from None
    if len(content) > most:
        raise RequestError(f"The file is too large: at most {most / 1e6:.0f} MB are allowed.")
    return content


def bytes_from_text(text: Any, *, most: int = MAX_IMAGE_TEXT) -> bytes:
    """The file that came as a data URL or as plain base64.

    Raises:
        RequestError: no such text, or longer than `most` characters.
    """
    if not isinstance(text, str) or not text.strip():
        raise RequestError("An image must come as a data URL or as base64.")
    if len(text) > most:
        raise RequestError("The image is too large.")
    plain = text.split(",", 1)[1] if text.startswith("data:") and "," in text else text
    try:
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("An image must come as a data URL or as base64.") from None


def image_from_text(text: Any, *, most: int = MAX_IMAGE_TEXT) -> Image.Image:
    """Open an image that came as a data URL or as plain base64.

    Raises:
        RequestError: no such text, longer than `most` characters, or no image.
    """
    return open_photo(bytes_from_text(text, most=most))


def painter_value(photo: Image.Image) -> dict[str, Any]:
    """What the painter shows: the photo, at most `SHOWN_SIDE` pixels a side, with a clean mask.

    A small photo is shown enlarged, so that its mask has smooth edges too.
    """
    scale = SHOWN_SIDE / max(photo.size)
    width, height = (max(1, round(side * scale)) for side in photo.size)
    shown = flatten_alpha(photo).resize((width, height), Image.Resampling.LANCZOS)
    return {"photo": render.data_url(shown, quality=88), "key": secrets.token_hex(6)}


def painted_mask(value: Any, size: tuple[int, int]) -> np.ndarray | None:
    """What was painted, at the photo's size.

    Args:
        value: what the painter sent.
        size: (width, height) of the photo in pixels.

    Returns:
        bool (height, width), True = repaint; None where nothing was painted. Any paint leaves at
        least one pixel.

    Raises:
        RequestError: a mask that cannot be read.
    """
    text = value.get("mask") if isinstance(value, dict) else None
    if not text:
        return None
    drawn = image_from_text(text, most=MAX_MASK_TEXT).convert("L")
    if max(drawn.size) > 4 * SHOWN_SIDE:
        raise RequestError("The mask is too large.")
    # Averaged when shrinking, smooth when growing: the edge stays where it was painted.
    shrinks = size[0] < drawn.width
    kind = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    mask = np.asarray(drawn.resize(size, kind)) >= 128
    if mask.any():
        return mask
    rows, columns = np.nonzero(np.asarray(drawn) >= 128)
    if not rows.size:
        return None
    # Too little paint to make up most of any pixel: take every pixel that it touches.
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[rows * size[1] // drawn.height, columns * size[0] // drawn.width] = True
    return mask


class PhotoStore:
    """Photos and results of the running sessions as files, so that no session holds them in memory.

    Args:
        folder: where to write; `kept_folder` if not given. Files older than `KEEP_SECONDS` are
            removed when new ones are written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._folder = Path(folder or kept_folder())

    def save(self, image: Image.Image, stem: str = "photo", recipe: Recipe | None = None) -> str:
        """Write a lossless PNG, with its recipe where there is one, and return its path."""
        return self.write(
            lambda path: write_image(image, path, "PNG", recipe, compress_level=1), stem, "png"
        )

    def write(self, write: Callable[[Path], Any], stem: str, suffix: str) -> str:
        """Let `write(path)` write a new file named `stem`.`suffix` and return its path.

        Raises:
            RequestError: it cannot be written, such as on a full disk; nothing is left of it.
        """
        self._prune()
        folder = self._folder / secrets.token_hex(16)
        path = folder / f"{stem}.{suffix}"
        try:
            folder.mkdir(parents=True)
            write(path)
        except OSError as error:
            log.error("no file can be kept: %s", error.strerror)
            shutil.rmtree(folder, ignore_errors=True)
            FILES.give_back(MAX_FILE_BYTES)
            raise RequestError(NO_ROOM) from error
        FILES.add(current_visitor(), path)
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
