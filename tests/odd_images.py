"""Two hundred files that are no proper photo, or a rare kind of one, made anew from a seed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageCms

SIDE = 24
COUNT = 200


def noise(seed: int, mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def png(width: int, height: int, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(body or b"\0" * 64))
        + chunk(b"IEND", b"")
    )


def tiff(tags: list[tuple[int, int, int]]) -> bytes:
    """A TIFF of one directory; tags are (number, type, value)."""
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def truncated(random: Random) -> bytes:
    kind = random.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
    content = saved(noise(random.randrange(99)), kind)
    return content[: random.randrange(len(content))]


def damaged(random: Random) -> bytes:
    kind = random.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
    content = bytearray(saved(noise(random.randrange(99)), kind))
    for _ in range(random.randrange(1, 12)):
        content[random.randrange(len(content))] = random.randrange(256)
    return bytes(content)


def wrong_magic(random: Random) -> bytes:
    heads = [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM"]
    heads += [b"RIFF\x10\0\0\0WEBP", b"%!PS-Adobe-3.0 EPSF", b"%PDF-1.7", b"P6 9999999 1 255\n"]
    heads += [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\0\x20ftypheic", b"", b"MZ"]
    return random.choice(heads) + random.randbytes(random.randrange(200))


def huge(random: Random) -> bytes:
    side = random.choice([10_000, 65_535, 2**31 - 1])
    bitmap = struct.pack("<IHHIIiiHHI", 99, 0, 0, 54, 40, side, -side, 1, 24, 0)
    made: list[Callable[[], bytes]] = [
        lambda: png(side, side),
        lambda: png(side, 1),
        lambda: b"P6 %d %d 255\n" % (side, side),
        lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        lambda: b"BM" + bitmap + b"\0" * 40,
        lambda: png(9_000, 9_000, 1, 0, bytes(9_000 * 1_126)),
        lambda: tiff([(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 5), (262, 3, 1)]),
    ]
    return random.choice(made)()


def huge_inside(random: Random) -> bytes:
    """Small photos with parts that claim to be large: strips, tiles, chunks."""
    big = random.choice([2**16, 2**30, 2**32 - 1])
    head = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, random.choice([1, 5, 8])), (262, 3, 1)]
    strips = [(273, 4, 8), (278, 4, big), (279, 4, big)]
    tiles = [(322, 4, big), (323, 4, big), (324, 4, 8), (325, 4, big)]
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 3_000_000))
    whole = png(8, 8, body=bytes(8 * 25))
    with_text = whole.replace(chunk(b"IEND", b""), text + chunk(b"IEND", b""))
    return random.choice([tiff(head + strips), tiff(head + tiles), with_text])


def empty(random: Random) -> bytes:
    return random.choice(
        [png(0, 0), png(0, 9), png(9, 0), b"P6 0 0 255\n", b"GIF89a\0\0\0\0\0\0\0;"]
    )


def animated(random: Random) -> bytes:
    frames = [noise(seed) for seed in range(4)]
    kind = random.choice(["GIF", "WEBP", "PNG", "TIFF"])
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def two_in_one(_: Random) -> bytes:
    return saved(noise(1), "MPO", save_all=True, append_images=[noise(2)])


def rare_mode(random: Random) -> bytes:
    kind, mode = random.choice(
        [
            ("JPEG", "CMYK"),
            ("JPEG", "L"),
            ("TIFF", "CMYK"),
            ("TIFF", "LAB"),
            ("TIFF", "F"),
            ("TIFF", "I"),
            ("PNG", "P"),
            ("PNG", "1"),
            ("PNG", "LA"),
            ("PNG", "I;16"),
            ("GIF", "P"),
            ("BMP", "1"),
            ("PPM", "1"),
            ("WEBP", "RGBA"),
        ]
    )
    if mode == "I;16":
        values = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 99
        return saved(Image.fromarray(values), kind)
    if mode == "LAB":
        return saved(Image.merge("LAB", noise(1).split()), kind)
    return saved(noise(1, mode), kind)


def with_profile(random: Random) -> bytes:
    name = random.choice(["sRGB", "LAB", "XYZ", "broken"])
    profile = random.randbytes(500)
    if name != "broken":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()
    return saved(noise(1), random.choice(["JPEG", "PNG", "WEBP"]), icc_profile=profile)


def with_exif(random: Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = random.choice([0, 3, 6, 8, 9, 65_535])
    content = exif.tobytes()
    if random.random() < 0.6:
        content = b"Exif\0\0" + random.choice([b"II*\0", b"MM\0*", b""]) + random.randbytes(60)
    return saved(noise(1), random.choice(["JPEG", "PNG", "WEBP"]), exif=content)


KINDS: list[Callable[[Random], bytes]] = [
    truncated,
    damaged,
    wrong_magic,
    huge,
    huge_inside,
    empty,
    animated,
    two_in_one,
    rare_mode,
    with_profile,
    with_exif,
]


def odd_images(count: int = COUNT) -> list[tuple[str, bytes]]:
    """Name of the kind and content, the same each time."""
    random = Random(7)
    made = []
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        made.append((f"{kind.__name__}-{index}", kind(random)))
    return made
