"""Writing images: the name decides the format, and the file says how it was made.

A recipe is plain data: the model, the classes, the seed and the settings that make the same image
again. It travels as a text chunk in PNG, as a comment in GIF, and as the EXIF description in JPEG,
WebP and TIFF.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from maskgit_core.data.images import ORIENTATION, flatten_alpha, orientation_of

FORMAT_OF_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
RECIPE_KEY = "recipe"  # of the text chunk
MAX_EXIF_RECIPE = 60_000  # bytes; the EXIF of a JPEG ends at 65,533
_DESCRIPTION = 0x010E

Recipe = Mapping[str, Any]


def image_format(path: str | os.PathLike[str]) -> str:
    """Return Pillow's name of the format that the ending of a file name stands for.

    Raises:
        ValueError: no known ending, naming the argument `out`.
    """
    try:
        return FORMAT_OF_SUFFIX[Path(path).suffix.lower()]
    except KeyError:
        known = ", ".join(FORMAT_OF_SUFFIX)
        raise ValueError(f"out must end in one of {known}; got {os.fspath(path)!r}") from None


def write_image(
    image: Image.Image,
    target: str | os.PathLike[str] | BinaryIO,
    kind: str,
    recipe: Recipe | None = None,
    **options: Any,
) -> None:
    """Write an image, its colour profile, its orientation if it has one, and its recipe.

    PNG, WebP and TIFF are lossless; JPEG is not, and has no transparency: white takes its place.

    Args:
        image: RGB or RGBA.
        target: path or open file.
        kind: one of Pillow's names in `FORMAT_OF_SUFFIX`, or GIF.
        recipe: plain data; left out of a JPEG or WebP where it has more than `MAX_EXIF_RECIPE`
            bytes.
        options: of Pillow's writer, instead of the usual ones.

    Raises:
        OSError: it cannot be written.
        ValueError: more pixels than the format takes.
    """
    if kind == "JPEG":
        image = flatten_alpha(image)
    usual: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},
        "TIFF": {"compression": "tiff_deflate"},
    }
    found = {**usual.get(kind, {}), **options}
    if profile := image.info.get("icc_profile"):
        found["icc_profile"] = profile
    text = None if recipe is None else json.dumps(recipe)
    exif = Image.Exif()
    if orientation_of(image) != 1:
        exif[ORIENTATION] = orientation_of(image)
    if text is not None and kind == "PNG":
        found["pnginfo"] = PngInfo()
        found["pnginfo"].add_text(RECIPE_KEY, text, zip=len(text) > 4096)
    elif text is not None and kind == "GIF":
        found["comment"] = text
    elif text is not None and len(text) <= MAX_EXIF_RECIPE:
        exif[_DESCRIPTION] = text
    if len(exif):
        found["exif"] = exif
    image.save(target, kind, **found)


def recipe_of(image: Image.Image) -> dict[str, Any] | None:
    """Return the recipe in an image that was opened from a file; None where there is none."""
    text = image.info.get(RECIPE_KEY, image.info.get("comment"))
    try:
        recipe = json.loads(image.getexif()[_DESCRIPTION] if text is None else text)
    except (KeyError, TypeError, ValueError, RecursionError, SyntaxError, OSError):
        return None
    return recipe if isinstance(recipe, dict) else None
