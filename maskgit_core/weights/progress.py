"""How far a fetch is, for whoever shows it, and the way to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from maskgit_core.hub_client import FetchError

FETCHING, CHECKING, CONVERTING = "fetching", "checking", "converting"


class Progress:
    """State of one fetch: written by the thread that fetches, read and cancelled by others.

    Attributes:
        stage: `fetching`, `checking` or `converting`.
    """

    def __init__(self) -> None:
        self.stage = FETCHING
        self._lock = threading.Lock()
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._cancelled = threading.Event()
        self._aborts: list[Callable[[], object]] = []

    def expect(self, name: str, size: int) -> None:
        """Set the size in bytes of a file that has to travel."""
        with self._lock:
            self._totals[name] = size
            self._done.setdefault(name, 0)

    def advance(self, name: str, count: float) -> None:
        """Count bytes of a file that have arrived; negative where they are sent again."""
        with self._lock:
            self._done[name] = max(0, self._done.get(name, 0) + int(count))

    def finish(self, name: str, size: int | None = None) -> None:
        """Mark a file as there; `size` is how many bytes it turned out to have."""
        with self._lock:
            if size is not None:
                self._totals[name] = size
            self._done[name] = self._totals.get(name, 0)

    def restart(self, name: str) -> None:
        """Forget the bytes of a file that is sent from its beginning again."""
        with self._lock:
            self._done[name] = 0

    @property
    def total(self) -> int:
        """Bytes to travel, as far as known."""
        with self._lock:
            return sum(self._totals.values())

    @property
    def done(self) -> int:
        """Bytes that have arrived; never more than `total`."""
        with self._lock:
            return sum(min(self._done[name], size) for name, size in self._totals.items())

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked to stop."""
        return self._cancelled.is_set()

    def on_cancel(self, abort: Callable[[], object]) -> None:
        """Have something called, once, by the thread that cancels."""
        with self._lock:
            self._aborts.append(abort)

    def cancel(self) -> None:
        """Ask the fetch to stop; it ends with a `FetchError` as soon as it can."""
        self._cancelled.set()
        with self._lock:
            aborts, self._aborts = self._aborts, []
        for abort in aborts:
            abort()

    def check(self) -> None:
        """Raise FetchError where somebody has asked to stop."""
        if self.cancelled:
            raise FetchError("cancelled", "the download was cancelled")

    def enter(self, stage: str) -> None:
        """Begin a stage, unless cancelled."""
        self.check()
        self.stage = stage


def hub_bar(progress: Progress, name: str) -> type:
    """Return the class of progress bar that the Hub's client is to show for a file.

    It is the client's own bar, which shells see, and counts for `progress` besides. A bar with a
    method `update_transfer` is used alone for a Xet transfer, so that no byte counts twice.
    """
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        shown = False  # becomes True where anything travels

        def __init__(self, *args: Any, **settings: Any) -> None:
            type(self).shown = True
            # A Xet transfer reports from a native thread, where an error would be lost: it is
            # stopped by `on_cancel`.
            self._native = "xet" in str(settings.get("name"))
            if settings.get("total"):
                progress.expect(name, int(settings["total"]))
            progress.restart(name)
            progress.advance(name, settings.get("initial") or 0)
            super().__init__(*args, **settings)

        def update(self, n: float | None = 1) -> bool | None:
            progress.advance(name, n or 0)
            if not self._native:
                progress.check()
            return super().update(n)

        def update_transfer(self, n: float = 0) -> None:
            """Bytes on the wire, which packing makes fewer than those of the file."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """Speed on the wire; not shown."""

    return Bar


def expected_bytes(sizes: Iterable[tuple[str, int]]) -> Progress:
    """Return a progress that knows what will travel before it begins."""
    progress = Progress()
    for name, size in sizes:
        progress.expect(name, size)
    return progress
