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

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise Stopped(number)
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            os._exit(128 + number)

    previous = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
