"""What keeps a run from harm: signals that stop it, one run a folder, losses that explode.

The rule for losses: a step whose loss or gradient is not finite, or whose watched loss is above
`explode_factor` times its mean of late, is not taken. The run goes back to its last saved state
and goes on with half the rate; after `MAX_ROLLBACKS` returns it ends with an error.
"""

from __future__ import annotations

import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = "run.lock"
OWN = ("checkpoint", "cache", "evaluation")  # folders of a run; others may be another run's
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.part")  # as `write_atomically` names what is not whole
MAX_ROLLBACKS = 4
RATE_CUT = 0.5
WARM_STEPS = 20
MEAN_SPAN = 50  # steps


@contextmanager
def stop_on_signal(*, again: bool = True) -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or Ctrl-C sets; a second Ctrl-C interrupts at once.

    When the work inside is done, a handler that a program had set before learns of the signal.

    Args:
        again: whether a second SIGTERM interrupts too. Where torchrun passes the signal on, each
            process may get it twice and must still be given the time to save.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }

    came: list[int] = []

    def handle(number: int, frame: object) -> None:
        came.append(number)
        event.set()
        if again or number == signal.SIGINT:
            signal.signal(number, previous[number])

    try:
        for number in previous:
            signal.signal(number, handle)
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        handler = previous[came[0]]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(came[0], None)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a folder against other runs.

    The lock belongs to the open file, so it ends with the process, however that ends; a file left
    behind means nothing.

    Raises:
        ValueError: another process trains into the folder; its number is named.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK_FILE
    with _locked(path) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove the files that killed runs were in the midst of writing.

    Args:
        folder: of one run, with the folders in it that are its own; or of several runs, where
            something may be written just now.
        older_than: seconds since the last byte was written.
    """
    now = time.time()
    for path in (part for each in (folder, *map(folder.joinpath, OWN)) for part in each.glob(".*")):
        with suppress(OSError):
            if LEFTOVER.fullmatch(path.name) and now - path.stat().st_mtime >= older_than:
                path.unlink()


def _locked(path: Path) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise ValueError(
                f"out must be a folder that no other run writes to; process {owner} trains into "
                f"{path.parent}"
            ) from None
        # The last owner may have deleted the file between the two calls.
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


class LossGuard:
    """Judges the loss of every step, and remembers how often the run had to go back.

    Args:
        factor: how many times its mean of late the watched loss may be; 0 watches for nan only.

    Attributes:
        rate_scale: share of the planned rate that is used.
        rollbacks: how often the run went back.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.mean = 0.0
        self.count = 0
        self.rate_scale = 1.0
        self.rollbacks = 0

    def complaint(self, loss: float, watched: float, norm: float) -> str | None:
        """Return what is wrong with a step, None where nothing is; the mean moves only then."""
        for name, value in (("loss", loss), ("gradient", norm), ("loss", watched)):
            if not math.isfinite(value):
                return f"the {name} is {value}"
        if self.factor and self.count >= WARM_STEPS and watched > self.factor * self.mean:
            return f"the loss is {watched:.4g}, its mean of late is {self.mean:.4g}"
        self.count = min(self.count + 1, MEAN_SPAN)
        self.mean += (watched - self.mean) / self.count
        return None

    def rolled_back(self, complaint: str, step: int) -> None:
        """Count a return and lower the rate.

        Raises:
            ValueError: the run went back too often.
        """
        if self.rollbacks == MAX_ROLLBACKS:
            raise ValueError(
                f"learning_rate is too high: at step {step + 1} {complaint}, after "
                f"{MAX_ROLLBACKS} returns with half the rate each; the last saved state is kept"
            )
        self.rollbacks += 1
        self.rate_scale *= RATE_CUT

    def state(self) -> dict[str, float]:
        """Return what is needed to resume."""
        return {
            "mean": self.mean,
            "count": self.count,
            "rate_scale": self.rate_scale,
            "rollbacks": self.rollbacks,
        }

    def load_state(self, state: dict[str, Any], *, keep_rate: bool = False) -> None:
        """Take back what `state` returned; with keep_rate only the mean."""
        self.mean, self.count = float(state["mean"]), int(state["count"])
        if not keep_rate:
            self.rate_scale, self.rollbacks = float(state["rate_scale"]), int(state["rollbacks"])
