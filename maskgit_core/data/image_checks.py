"""What can be counted in an image file before a decoder sees it: parts that cost time or memory.

Every bound is several times what cameras, phones and editors write. A file that exceeds one is
legal but made to keep a decoder busy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

MAX_SCANS = 100  # of a progressive JPEG; encoders write about ten
MAX_SEGMENTS = 2_000  # of a JPEG before its pixels; profiles and previews take dozens
MAX_FILL_BYTES = 4_096  # 0xFF before a JPEG marker; encoders write none
MAX_CHUNKS = 20_000  # of a PNG or WebP; a chunk of pixels usually has 8 kB and more
MAX_TAGS = 1_000  # of one TIFF directory
_PIXEL_TAGS = (256, 257, 277, 322, 323)  # width, height, samples, tile width, tile height
_TAG_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8


class HostileImageError(ValueError):
    """The file is made to keep a decoder busy; its message goes on after the word image."""


def check_image_bytes(content: bytes, max_pixels: int) -> None:
    """Refuse what is cheap to recognise as dear to decode.

    A file that passes may still be dear: `decoder` gives it a limit of time and memory.

    Args:
        content: a whole file.
        max_pixels: that one tile of a TIFF may have.

    Raises:
        HostileImageError: one of the counts is out of bounds.
    """
    for start, check in _CHECKS.items():
        if content.startswith(start):
            check(content, max_pixels)
            return


def _check_jpeg(content: bytes, _: int) -> None:
    # In coded pixels 0xFF is followed by 0 or a restart marker, so this counts scans (and those of
    # previews in the metadata).
    if content.count(b"\xff\xda") > MAX_SCANS:
        raise HostileImageError(f"has more than {MAX_SCANS} scans")
    at, segments = 2, 0
    while at < len(content):
        if content[at] != 0xFF:
            return  # the decoder says what it thinks of it
        run = len(content[at : at + MAX_FILL_BYTES + 1])
        run -= len(content[at : at + MAX_FILL_BYTES + 1].lstrip(b"\xff"))
        if run > MAX_FILL_BYTES:
            raise HostileImageError("is padded without end")
        at += run
        marker = content[at] if at < len(content) else 0xD9
        if marker in (0xDA, 0xD9):
            return
        segments += 1
        if segments > MAX_SEGMENTS:
            raise HostileImageError(f"has more than {MAX_SEGMENTS} parts before its pixels")
        at += 1
        if not 0xD0 <= marker <= 0xD8 and marker != 0x01:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))


def _check_png(content: bytes, _: int) -> None:
    at, chunks = 8, 0
    while at + 8 <= len(content):
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise HostileImageError(f"has more than {MAX_CHUNKS} parts")
        at += 12 + int.from_bytes(content[at : at + 4], "big")


def _check_riff(content: bytes, _: int) -> None:
    at, chunks = 12, 0
    while at + 8 <= len(content):
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise HostileImageError(f"has more than {MAX_CHUNKS} parts")
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _check_tiff(content: bytes, max_pixels: int) -> None:
    """Look at the first directory, the only one that is decoded."""
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    try:
        (at,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", content, at)
    except (struct.error, OverflowError):
        return  # the decoder says that it is cut short
    if count > MAX_TAGS:
        raise HostileImageError(f"has more than {MAX_TAGS} tags")
    at += 8 if big else 2
    found: dict[int, int] = {}
    for number in range(count):
        place = at + number * (20 if big else 12)
        try:
            tag, kind = struct.unpack_from(f"{order}HH", content, place)
            if tag in _PIXEL_TAGS and kind in _TAG_FORMATS:
                value = order + _TAG_FORMATS[kind]
                (found[tag],) = struct.unpack_from(value, content, place + (12 if big else 8))
        except struct.error:
            return
    if found.get(322, 0) * found.get(323, 0) > max_pixels:
        raise HostileImageError(
            f"has tiles of {found[322]} x {found[323]} pixels, at most "
            f"{max_pixels / 1e6:.0f} megapixels are allowed"
        )
    if found.get(277, 1) > 8:
        raise HostileImageError(f"has {found[277]} channels; at most 8 are allowed")


def check_kind(content: bytes) -> None:
    """Refuse kinds that nobody brings as a photo and that are slow to decode.

    Raises:
        HostileImageError: PPM and its family, compressed BMP.
    """
    if content[:1] == b"P" and content[1:2] in b"1234567Ff" and content[1:2]:
        raise HostileImageError("is of the kind PPM, which is not opened here; export it as JPEG")
    if content.startswith(b"BM") and int.from_bytes(content[30:34], "little") in (1, 2):
        raise HostileImageError("is a compressed BMP, which is not opened here; export it as JPEG")


_CHECKS: dict[bytes, Callable[[bytes, int], None]] = {
    b"\xff\xd8": _check_jpeg,
    b"\x89PNG": _check_png,
    b"RIFF": _check_riff,
    b"II": _check_tiff,
    b"MM": _check_tiff,
}
