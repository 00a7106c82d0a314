"""Small image files that keep a decoder busy or make it take much memory, by name."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _small_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    return file.getvalue()


def jpeg_with_segments() -> bytes:
    whole = _small_jpeg()
    return whole[:2] + _segment(0xE1, b"Exif\0\0" + b"x" * 200) * 5_000 + whole[2:]


def jpeg_with_scans() -> bytes:
    whole = _small_jpeg()
    start = whole.index(b"\xff\xda")
    return whole[:start] + whole[start:-2] * 300 + whole[-2:]


def jpeg_with_fill_bytes() -> bytes:
    return b"\xff\xd8" + b"\xff" * 3_000_000


def jpeg_with_inner_fill_bytes() -> bytes:
    whole = _small_jpeg()
    return whole[:2] + b"\xff" * 3_000_000 + whole[2:]


def tiff_with_one_tile(order: str = "<", side: int = 30_000) -> bytes:
    """A picture of 1 x 1 pixels in one tile that claims to be much larger."""
    tags = [(256, 1), (257, 1), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side)]
    data = zlib.compress(bytes(100_000))
    tags += [(324, 8 + 2 + 12 * 10 + 4), (325, len(data))]
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + struct.pack(order + "H", len(tags)) + entries + bytes(4) + data


def tiff_big_endian() -> bytes:
    return tiff_with_one_tile(">")


def tiff_with_tags() -> bytes:
    return b"II*\0" + struct.pack("<IH", 8, 60_000) + bytes(12 * 60_000)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with_chunks() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    whole = file.getvalue()
    return whole[:33] + _png_chunk(b"teSt", b"") * 50_000 + whole[33:]


def png_with_many_pixels() -> bytes:
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    parts = [(b"IHDR", head), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*part) for part in parts)


def webp_with_chunks() -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(10) + b"JUNK\0\0\0\0" * 50_000
    return b"RIFF" + struct.pack("<I", len(body)) + body


HOSTILE: dict[str, Callable[[], bytes]] = {
    make.__name__: make
    for make in (
        jpeg_with_segments,
        jpeg_with_scans,
        jpeg_with_fill_bytes,
        jpeg_with_inner_fill_bytes,
        tiff_with_one_tile,
        tiff_big_endian,
        tiff_with_tags,
        png_with_chunks,
        png_with_many_pixels,
        webp_with_chunks,
    )
}
