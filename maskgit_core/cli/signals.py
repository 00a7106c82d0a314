"""What Ctrl-C and SIGTERM do to a command: it ends cleanly, with exit code 130 or 143.

While a program loads it leaves at once (`__main__`). Then a signal raises `Stopped` where it
strikes: files are written atomically, so all that was finished stays. The training loop takes
signals over while it runs, to save its state.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOST_SECONDS = 5.0


class Stopped(KeyboardInterrupt):
    """A signal ends the command.

    Attributes:
        code: exit code, 128 and the signal's number, as a shell gives it.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.code = 128 + number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Stopped inside at the first signal; a second one ends the process.

    Under torchrun, which passes on what the terminal has sent already, later ones do nothing.
    Outside the main thread, where Python handles no signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # C code that calls Python may lose an exception; then the process ends without one.
    late = threading.Timer(LOST_SECONDS, os._exit)
    late.daemon = True

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            if _importing(frame):
                os._exit(128 + number)
            late.args = [128 + number]
            late.start()
            raise Stopped(number)
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            os._exit(128 + number)

    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        late.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        raise Stopped(came[0])  # it was lost, and the work has ended all the same


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is under way: an exception that strikes there may be lost."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
