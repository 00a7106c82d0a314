"""Photos from files and back: safe opening, one colour form, pixels as tensors in [-1, 1]."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from maskgit_core.pixels import from_uint8, to_uint8

# A decoded photo of this size takes 120 MB; larger ones are refused before they are decoded.
MAX_PIXELS = 40_000_000
# Formats that Pillow decodes itself: no file can start another program (as EPS does).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

_ORIENTATION = 0x0112

ImageSource = str | os.PathLike | bytes | Image.Image
Box = tuple[int, int, int, int]

_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    KeyError,
    struct.error,
    zlib.error,
)


def load_image(source: ImageSource, *, keep_alpha: bool = False) -> Image.Image:
    """Open a photo of any common kind as 8-bit RGB, upright.

    Args:
        source: a path, the bytes of a file, or a PIL image of any mode.
        keep_alpha: give RGBA, with its colours as they are, where the photo has transparency;
            otherwise transparency is laid over white.

    Returns:
        A new image of mode RGB (or RGBA), turned as its EXIF orientation says, first frame only.
        16-bit grey is scaled to 8 bit.

    Raises:
        ValueError: not an image, cut short, or more than MAX_PIXELS pixels, which is read from the
            header before anything is decoded.
    """
    try:
        image = source if isinstance(source, Image.Image) else _open(source)
        _check_size(image)
        # Loading a PIL image of the caller's fills its pixels in, but changes none.
        image.load()
        # Turned only where needed: a large photo is copied as seldom as possible.
        upright = ImageOps.exif_transpose(image) if _is_turned(image) else image
        return _to_rgb(upright, keep_alpha=keep_alpha, from_file=image.format is not None)
    except _RefusedError as error:
        raise ValueError(f"image {error}") from None
    except _DECODING_ERRORS as error:
        raise ValueError(f"image cannot be read, it may be cut short: {error}") from error


def _is_turned(image: Image.Image) -> bool:
    """Whether the EXIF orientation is readable and says so; a photo with broken EXIF is a photo."""
    try:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except _DECODING_ERRORS:
        return False


class _RefusedError(Exception):
    """The photo is not taken; its message goes on after the word image."""


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _RefusedError(
            f"is too large: {width} x {height} pixels is {width * height / 1e6:.1f} "
            f"megapixels, at most {MAX_PIXELS / 1e6:.0f} are allowed"
        )
    if width == 0 or height == 0:
        raise _RefusedError("has no pixels")


def _open(source: str | os.PathLike | bytes) -> Image.Image:
    """Read the header of a file; the pixels are decoded later."""
    if isinstance(source, (str, os.PathLike)):
        try:
            source = Path(source).read_bytes()
        except OSError as error:
            raise _RefusedError(f"{source} cannot be opened: {error.strerror}") from None
    elif not isinstance(source, (bytes, bytearray)):
        kind = type(source).__name__
        raise _RefusedError(f"must be a path, the bytes of a file or a PIL image; got {kind}")
    try:
        return Image.open(io.BytesIO(source), formats=FORMATS)
    except Image.UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise _RefusedError(f"is no photo: none of the formats {known} fits") from None
    except Image.DecompressionBombError:
        raise _RefusedError(
            f"is too large: at most {MAX_PIXELS / 1e6:.0f} megapixels are allowed"
        ) from None


def _to_rgb(image: Image.Image, *, keep_alpha: bool, from_file: bool) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        # 32-bit grey holds 16-bit values in files; one made in memory may hold 8-bit ones.
        if image.mode != "I" or from_file or values.max() > 255:
            values = (values + 128) // 257
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    return colours if keep_alpha else flatten_alpha(colours)


def flatten_alpha(image: Image.Image) -> Image.Image:
    """Lay an RGBA image over white, as a new RGB image; a copy of one that is RGB already."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as float32 (1, 3, H, W) in [-1, 1].

    Raises:
        ValueError: an image of another mode; `load_image` gives RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"image must be of mode RGB; got {image.mode}")
    return from_uint8(np.array(image))[None]


def to_image(pixels: Tensor) -> Image.Image:
    """Return a tensor as an RGB image; the exact inverse of `to_tensor`.

    Args:
        pixels: floating point (1, 3, H, W) or (3, H, W), in [-1, 1]; what lies outside is clipped.

    Raises:
        ValueError: another shape, or values that are nan or infinite.
    """
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise ValueError(f"pixels must be (1, 3, H, W) or (3, H, W); got {tuple(pixels.shape)}")
    pixels = pixels.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError("pixels must be finite; got nan or infinity")
    return Image.fromarray(to_uint8(pixels).numpy())


def centre_square(size: tuple[int, int]) -> Box:
    """Return the box (left, top, right, bottom) of the largest square in the middle of a photo.

    Args:
        size: (width, height) in pixels.
    """
    width, height = size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def crop_to_square(image: Image.Image, image_size: int, box: Box | None = None) -> Image.Image:
    """Return a square part of an RGB photo, at the model's size.

    Args:
        image: the photo, RGB.
        image_size: side of the result in pixels.
        box: (left, top, right, bottom) in pixels; None takes the largest square in the middle.

    Returns:
        An RGB image; the pixels themselves where the box has that size already, otherwise
        resampled (Lanczos, antialiased).
    """
    cropped = image.crop(box or centre_square(image.size))
    return resize(cropped, (image_size, image_size))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return the image at (width, height) pixels; unchanged where it has that size."""
    if image.size == size:
        return image.copy()
    return image.resize(size, Image.Resampling.LANCZOS)
