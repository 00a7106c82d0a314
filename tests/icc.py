"""Small colour profiles (ICC 2.4), written by hand: grey of any gamma, CMYK, RGB of any gamut."""

from __future__ import annotations

import struct

import numpy as np
from PIL import ImageCms

D50 = (0.9642, 1.0, 0.8249)
INKS = ((90, 200, 230), (210, 60, 150), (240, 220, 40), (50, 50, 50))  # on white paper


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"profile made for a test"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 78)
    tags = {b"desc": described, b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50), **tags}
    table, content = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", start + len(content), len(padded))
        content += padded
    size = start + len(content)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, kind, space, connection)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(*D50)
    return head.ljust(128, b"\0") + table + content


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def grey_profile(gamma: float) -> bytes:
    """A grey profile: light is the level to the power of gamma."""
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": _gamma(gamma)})


def wide_rgb_profile() -> bytes:
    """An RGB profile with primaries far outside sRGB (near those of ProPhoto), gamma 1.8."""
    primaries = {
        b"rXYZ": (0.7977, 0.2880, 0.0),
        b"gXYZ": (0.1352, 0.7119, 0.0),
        b"bXYZ": (0.0313, 0.0001, 0.8249),
    }
    tags = {name: b"XYZ " + bytes(4) + _fixed(*values) for name, values in primaries.items()}
    tags |= {name: _gamma(1.8) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def cmyk_profile() -> bytes:
    """A CMYK profile whose inks are duller than Pillow takes them to be: a table of 2^4 colours."""
    grid = []
    for inks in np.ndindex(2, 2, 2, 2):  # cyan changes slowest
        rgb = np.array([255.0, 255.0, 255.0])
        for ink, left in zip(inks, INKS, strict=True):
            rgb *= np.array(left) / 255 if ink else 1.0
        grid.append(_lab(rgb))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += ramp * 4 + bytes(np.array(grid, np.uint8).ravel()) + ramp * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut})


def _lab(rgb: np.ndarray) -> list[int]:
    from PIL import Image

    pixel = Image.new("RGB", (1, 1), tuple(round(value) for value in rgb))
    lab = ImageCms.profileToProfile(
        pixel, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    light, a, b = lab.tobytes()
    return [light, (a + 128) % 256, (b + 128) % 256]
