"""The child of `decoder`: opens one image after another, under limits, until its parent goes.

`python -m maskgit_core.data.decoder_child BYTES` reads requests from standard input and writes
answers to standard output, each a line of JSON and the bytes that it announces. It loads no torch.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from typing import Any, BinaryIO

from PIL import Image

from maskgit_core.data.colour import rgb_profile, to_srgb
from maskgit_core.data.images import load_image, open_image, orientation_of

SMALL_BYTES = (
    32 * 1024**2
)  # a child that held more is replaced, so that its memory goes back to the system


def limit_memory(most_bytes: int) -> None:
    """Bound the address space where the system can; elsewhere the limits of pixels must do."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def answer(out: BinaryIO, header: dict[str, Any], content: bytes = b"") -> None:
    """Write an answer."""
    last = len(content) > SMALL_BYTES
    out.write(json.dumps({**header, "bytes": len(content), "last": last}).encode() + b"\n")
    out.write(content)
    out.flush()


def open_one(content: bytes, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the answer for one image: its mode, size, profile and pixels, or a sentence."""
    try:
        image = open_image(content, upright=request["upright"], max_pixels=request["max_pixels"])
        orientation = orientation_of(image)
        image = _plain_mask(image) if request["mask"] else load_image(image, keep_alpha=True)
        if request["srgb"]:
            image = to_srgb(image, rgb_profile(image))
        profile = image.info.get("icc_profile", b"") if rgb_profile(image) else b""
        facts = {"mode": image.mode, "size": image.size, "orientation": orientation}
        return {**facts, "profile": len(profile)}, profile + image.tobytes()
    except ValueError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"error": "image takes too much memory to open"}, b""


def _plain_mask(image: Image.Image) -> Image.Image:
    """A mask of which its pixels alone tell all: no palette, and no colour that is left out."""
    if image.has_transparency_data:
        return image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
    return image.convert("RGB") if image.mode == "P" else image


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    Image.preinit()
    Image.init()
    limit_memory(int(sys.argv[1]))
    source, out = sys.stdin.buffer, sys.stdout.buffer
    answer(out, {})
    while line := source.readline():
        request = json.loads(line)
        content = source.read(request["bytes"])
        header, pixels = open_one(content, request)
        answer(out, header, pixels)


if __name__ == "__main__":
    main()
