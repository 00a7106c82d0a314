"""Photos from files and back: safe opening, one colour form, pixels as tensors in [-1, 1]."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from maskgit_core.data.colour import as_rgb
from maskgit_core.data.image_checks import HostileImageError, check_image_bytes
from maskgit_core.data.kinds import kind_of, readable_formats

if TYPE_CHECKING:  # the children of `decoder` do without torch
    from torch import Tensor

# A decoded photo of this size takes 120 MB; larger ones are refused before they are decoded.
MAX_PIXELS = 40_000_000

ORIENTATION = 0x0112  # the EXIF tag

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
    RuntimeError,
    struct.error,
    zlib.error,
)


def load_image(
    source: ImageSource, *, keep_alpha: bool = False, max_pixels: int | None = None
) -> Image.Image:
    """Open a photo of any common kind as 8-bit RGB.

    Args:
        source: a path, the bytes of a file, or a PIL image of any mode.
        keep_alpha: give RGBA, with its colours as they are, where the photo has transparency;
            otherwise transparency is laid over white.
        max_pixels: width times height at most; None is MAX_PIXELS.

    Returns:
        A new image of mode RGB (or RGBA), first frame only. A file is turned as its EXIF
        orientation says; a PIL image stays as its caller sees it, of the size that it has.
        16-bit grey is scaled to 8 bit. Pixels of RGB stay as they are, with their colour profile;
        CMYK, grey and Lab become sRGB as theirs says (see `colour.as_rgb`).

    Raises:
        ValueError: not an image, cut short, or more than max_pixels pixels, which is read from the
            header before anything is decoded.
    """
    image = open_image(source, max_pixels=max_pixels)
    try:
        return _to_rgb(image, keep_alpha=keep_alpha, from_file=image.format is not None)
    except _DECODING_ERRORS as error:
        raise ValueError(f"image cannot be read, it may be cut short: {error}") from error


def open_image(
    source: ImageSource, *, upright: bool = True, max_pixels: int | None = None
) -> Image.Image:
    """Open and decode a file in the mode that it has; a PIL image is checked and returned.

    This is the one place where bytes of strangers are decoded.

    Args:
        source: as in `load_image`.
        upright: turn a file as its EXIF orientation says; otherwise it stays as it is stored.
        max_pixels: as in `load_image`.

    Raises:
        ValueError: as `load_image`.
    """
    try:
        image = source if isinstance(source, Image.Image) else _open(source)
        check_pixels(*image.size, max_pixels, error=_RefusedError)
        # Loading a PIL image of the caller's fills its pixels in, but changes none.
        image.load()
        return image if image is source or not upright else turn_upright(image)
    except _RefusedError as error:
        raise ValueError(f"image {error}") from None
    except _DECODING_ERRORS as error:
        raise ValueError(f"image cannot be read, it may be cut short: {error}") from error


def turn_upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says; itself where there is nothing to turn.

    A photo with broken EXIF is a photo.
    """
    # A large photo is copied as seldom as possible.
    if orientation_of(image) == 1:
        return image
    turned = ImageOps.exif_transpose(image)
    turned.format = image.format
    return turned


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where there is none that can be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except _DECODING_ERRORS:
        return 1
    return value if value in range(1, 9) else 1


def kept_info(orientation: int, profile: bytes) -> dict[str, bytes]:
    """Return what an image's `info` says of its pixels: which way is up, and what colours they are.

    Args:
        orientation: as in EXIF; 1 is upright and not noted.
        profile: ICC, empty where it is sRGB.
    """
    info = {"icc_profile": profile} if profile else {}
    if orientation != 1:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        info["exif"] = exif.tobytes()
    return info


class _RefusedError(Exception):
    """The photo is not taken; its message goes on after the word image."""


def check_pixels(
    width: int,
    height: int,
    max_pixels: int | None = None,
    *,
    error: type[Exception] = ValueError,
) -> None:
    """Raise an error whose message goes on after the word image, unless it may be as large."""
    most = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > most:
        raise error(
            f"is too large: {width} x {height} pixels is {width * height / 1e6:.1f} "
            f"megapixels, at most {most / 1e6:.0f} are allowed"
        )
    if width == 0 or height == 0:
        raise error("has no pixels")


def _open(source: str | os.PathLike | bytes) -> Image.Image:
    """Read the header of a file; the pixels are decoded later."""
    if isinstance(source, (str, os.PathLike)):
        try:
            source = Path(source).read_bytes()
        except OSError as error:
            raise _RefusedError(
                f"{os.fspath(source)!s} cannot be opened: {error.strerror}"
            ) from None
    elif not isinstance(source, (bytes, bytearray)):
        kind = type(source).__name__
        raise _RefusedError(f"must be a path, the bytes of a file or a PIL image; got {kind}")
    formats = readable_formats()
    try:
        check_image_bytes(bytes(source), MAX_PIXELS)
    except HostileImageError as error:
        raise _RefusedError(str(error)) from None
    try:
        return Image.open(io.BytesIO(source), formats=formats)
    except Image.UnidentifiedImageError:
        kind = kind_of(source)
        if kind in formats:
            raise _RefusedError(f"({kind}) cannot be read, it may be damaged") from None
        if kind is not None:
            raise _RefusedError(
                f"is of the kind {kind}: photos of this kind cannot be read here; export it as JPEG"
            ) from None
        raise _RefusedError(f"is no photo: none of the formats {', '.join(formats)} fits") from None
    except Image.DecompressionBombError:
        raise _RefusedError(
            f"is too large: at most {MAX_PIXELS / 1e6:.0f} megapixels are allowed"
        ) from None


def _to_rgb(image: Image.Image, *, keep_alpha: bool, from_file: bool) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        info = image.info
        values = np.asarray(image).astype(np.int64)
        # 32-bit grey holds 16-bit values in files; one made in memory may hold 8-bit ones.
        if image.mode != "I" or from_file or values.max() > 255:
            values = (values + 128) // 257
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        image.info.update(info)
        image.info.pop("transparency", None)  # a level of 16 bits
    colours = as_rgb(image)
    return colours if keep_alpha or colours.mode == "RGB" else flatten_alpha(colours)


def flatten_alpha(image: Image.Image) -> Image.Image:
    """Lay an RGBA image over white, as a new RGB image; a copy of one that is RGB already."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    white.info = {**image.info}
    return white


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as float32 (1, 3, H, W) in [-1, 1].

    Raises:
        ValueError: an image of another mode; `load_image` gives RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"image must be of mode RGB; got {image.mode}")
    from maskgit_core.pixels import from_uint8

    return from_uint8(np.array(image))[None]


def to_image(pixels: Tensor) -> Image.Image:
    """Return a tensor as an RGB image; the exact inverse of `to_tensor`.

    Args:
        pixels: floating point (1, 3, H, W) or (3, H, W), in [-1, 1]; what lies outside is clipped.

    Raises:
        ValueError: another shape, or values that are nan or infinite.
    """
    import torch

    from maskgit_core.pixels import to_uint8

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
