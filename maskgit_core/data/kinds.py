"""Kinds of photo files: which can be read here, and what the others are called."""

from __future__ import annotations

import functools

from PIL import features

# Formats that Pillow decodes itself: no file can start another program (as EPS does).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# Of all photos that people keep: files with these endings are opened, or named as left out.
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".heic", ".heif", ".ppm", ".pgm", ".pbm", ".jfif", ".jp2", ".jxl", ".psd"),
)

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_BEGINNINGS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "PSD",
}


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return the names, as Pillow's, of the formats that can be read with what is installed.

    AVIF where Pillow was built with it, HEIF where the package `pillow-heif` is installed.
    """
    found: tuple[str, ...] = FORMATS
    if features.check("avif"):
        found += ("AVIF",)
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return found
    register_heif_opener()
    return (*found, "HEIF")


def kind_of(content: bytes) -> str | None:
    """Return what kind of photo the beginning of a file looks like, of those Pillow may lack.

    Returns:
        Pillow's name where it has one (AVIF, HEIF); None for anything else, also for PNG and JPEG.
    """
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    if content[4:8] != b"ftyp":
        return None
    # The first box names a brand, and after its version the others that the file fits.
    end = min(int.from_bytes(content[:4], "big"), 256)
    brands = {content[8:12], *(content[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & (_HEIC_BRANDS | {b"mif1", b"msf1"}) else None
