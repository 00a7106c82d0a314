"""Images of strangers are decoded in child processes, which have limits and can be killed.

A decoder is a large program in C that reads what anybody made up: a file of a hundred kilobytes can
keep it busy for minutes or make it take gigabytes. A child that exceeds its seconds is killed and
replaced; the process that asked gets plain pixels or one sentence.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from maskgit_core.data.image_checks import HostileImageError, check_image_bytes, check_kind
from maskgit_core.data.images import MAX_PIXELS, kept_info

SHOWN, STORED, MASK = FORMS = ("shown", "stored", "mask")  # of what is opened, see `open`
CHILDREN = 2
SECONDS = 5.0
START_SECONDS = 60.0  # of a new child, on a busy machine
MEMORY_BYTES = 1536 * 1024**2  # of addresses; 40 megapixels with transparency need half of it
PATIENT_SECONDS = 60.0
PATIENT_MEMORY_BYTES = 6 * 1024**3
MAX_WAITING = 64
MAX_WAITING_OF_ONE = 8
TOO_MANY = "cannot be opened now: many others are being opened. Try again in a minute"
TOO_LONG = "takes too long to open, or too much memory"

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


def patient_decoder(children: int = 1) -> Decoder:
    """Return a decoder of files of one's own: no file ends or holds up what opens many of them."""
    memory = PATIENT_MEMORY_BYTES
    return Decoder(children, PATIENT_SECONDS, memory_bytes=memory, any_kind=True)


class Decoder:
    """A few children, and the queue in front of them.

    Owners take turns, and one owner has at most one child at a time where there are several.

    Args:
        children: processes at most; they start when they are needed.
        seconds: that one image may take.
        memory_bytes: of addresses that a child may use, where the system can bound them.
        max_pixels: of one image.
        any_kind: open kinds too that nobody brings as a photo, see `check_kind`.
    """

    def __init__(
        self,
        children: int = CHILDREN,
        seconds: float = SECONDS,
        memory_bytes: int = MEMORY_BYTES,
        max_pixels: int = MAX_PIXELS,
        any_kind: bool = False,
    ) -> None:
        self._any_kind = any_kind
        self._seconds, self._memory, self._max_pixels = seconds, memory_bytes, max_pixels
        self._changed = threading.Condition()
        self._free: list[_Child | None] = [None] * children  # None: one may be started
        self._busy: list[str] = []  # owners
        self._working: list[_Child] = []
        self._waiting: list[tuple[str, object]] = []
        self._served: dict[str, float] = {}  # when the owners of `_waiting` were served last
        atexit.register(self.close)

    def open(self, content: bytes, owner: str = "", form: str = SHOWN) -> Image.Image:
        """Decode an image as `images.load_image` does with `keep_alpha`.

        Args:
            content: a whole file.
            owner: whose it is; "" is one that need not take turns.
            form: one of `FORMS`: `shown` is upright and sRGB; `stored` is as the file
                has it, with its EXIF orientation and the profile of another RGB space; `mask` is
                upright, of any mode that `masks.as_pixel_mask` takes.

        Returns:
            A new image, of mode RGB or RGBA unless it is a mask; nothing else of the file stays.

        Raises:
            ValueError: not an image, too large, dear to decode, or too many wait; one sentence.
        """
        try:
            check_image_bytes(content, self._max_pixels)
            if not self._any_kind:
                check_kind(content)
        except HostileImageError as error:
            raise ValueError(f"image {error}") from None
        with self._child(owner) as child:
            wanted = {"max_pixels": self._max_pixels, "form": form}
            header, pixels = child.ask(content, wanted, self._seconds)
        if "error" in header:
            raise ValueError(header["error"])
        image = Image.frombytes(header["mode"], tuple(header["size"]), pixels)
        profile = bytes.fromhex(header["profile"])
        for name, value in kept_info(header["orientation"], profile).items():
            image.info[name] = value
        return image

    def close(self) -> None:
        """End the children that are idle."""
        atexit.unregister(self.close)
        with self._changed:
            for child in self._free:
                if child is not None:
                    child.end()
            self._free = [None] * len(self._free)

    @contextlib.contextmanager
    def _child(self, owner: str) -> Iterator[_Child]:
        child = self._take(owner)
        try:
            child = child or _Child(self._memory)
            self._working.append(child)
            yield child
        finally:
            with self._changed:
                if child is not None and child in self._working:
                    self._working.remove(child)
                self._busy.remove(owner)
                self._free.append(child if child is not None and child.alive else None)
                if any(waiting == owner for waiting, _ in self._waiting):
                    self._served[owner] = time.monotonic()  # others who wait come first
                self._changed.notify_all()

    def _take(self, owner: str) -> _Child | None:
        ticket = (owner, object())
        with self._changed:
            mine = sum(waiting == owner for waiting, _ in self._waiting)
            if len(self._waiting) >= MAX_WAITING or (owner and mine >= MAX_WAITING_OF_ONE):
                raise ValueError(f"image {TOO_MANY}")
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._next() is ticket)
            finally:
                self._waiting.remove(ticket)
                if not any(waiting == owner for waiting, _ in self._waiting):
                    self._served.pop(owner, None)
            self._busy.append(owner)
            child = self._free.pop()
            self._changed.notify_all()  # another child may be free for the next
            return child

    def _next(self) -> tuple[str, object] | None:
        """Who is served next; None while no child is free for anybody."""
        if not self._free:
            return None
        alone = len(self._free) + len(self._busy) == 1
        able = [t for t in self._waiting if alone or not t[0] or t[0] not in self._busy]
        return min(able, key=lambda t: self._served.get(t[0], 0.0), default=None)


class _Child:
    """One process; see `decoder_child` for what is said."""

    def __init__(self, memory_bytes: int) -> None:
        command = [sys.executable, "-m", "maskgit_core.data.decoder_child", str(memory_bytes)]
        paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread each: what is under way is bounded by the number of children.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)}
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.alive = True
        with self._limit(START_SECONDS):
            self._out.readline()  # it is ready: only decoding counts from here on

    def ask(
        self, content: bytes, wanted: dict[str, Any], seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        """Return its answer; after so many seconds it is killed, and the answer is a sentence."""
        request = json.dumps({"bytes": len(content), **wanted}).encode()
        with self._limit(seconds):
            try:
                self._in.write(request + b"\n" + content)
                self._in.flush()
                header = json.loads(self._out.readline())
                pixels = self._out.read(header["bytes"])
                if len(pixels) == header["bytes"]:
                    if header["last"]:
                        self.end()
                    return header, pixels
            except (OSError, ValueError):
                pass
        self.end()
        return {"error": f"image {TOO_LONG}"}, b""

    def kill(self) -> None:
        """Stop what it does; whoever asked is told."""
        self._process.kill()

    def end(self) -> None:
        """Kill it where it runs, and let the system forget it."""
        self.alive = False
        self._process.kill()
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    @contextlib.contextmanager
    def _limit(self, seconds: float) -> Iterator[None]:
        clock = threading.Timer(seconds, self._process.kill)
        clock.daemon = True
        clock.start()
        try:
            yield
        finally:
            clock.cancel()
