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


def open_one(content: bytes, max_pixels: int, form: str) -> tuple[dict[str, Any], bytes]:
    """Return the answer for one image: its mode, size and pixels, or a sentence."""
    kept = {"orientation": 1, "profile": ""}
    try:
        image = open_image(content, upright=form != "stored", max_pixels=max_pixels)
        if form == "mask":
            image = plain_mask(image)
        elif form == "stored":
            kept["orientation"] = orientation_of(image)
            image = load_image(image, keep_alpha=True, max_pixels=max_pixels)
            if rgb_profile(image) is not None:
                kept["profile"] = image.info["icc_profile"].hex()
        else:
            image = load_image(image, keep_alpha=True, max_pixels=max_pixels)
            image = to_srgb(image, rgb_profile(image))
        pixels = image.tobytes()
    except ValueError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"error": "image takes too much memory to open"}, b""
    return {"mode": image.mode, "size": image.size, **kept}, pixels


def plain_mask(image: Image.Image) -> Image.Image:
    """Return a mask in one of the modes whose bytes say all: no palette, no colour to be left out.

    Its numbers stay as they are, see `masks.as_pixel_mask`.
    """
    if image.has_transparency_data:
        return image if image.mode == "LA" else image.convert("RGBA")
    if image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16"):
        return image
    return image.convert("RGB")


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
        header, pixels = open_one(content, request["max_pixels"], request["form"])
        answer(out, header, pixels)


if __name__ == "__main__":
    main()
