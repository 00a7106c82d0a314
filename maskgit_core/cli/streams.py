"""Standard streams that are closed, full, or read by nobody any more."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO

READER_GONE = 141  # exit code, as of a program that the signal SIGPIPE ends


def open_closed_streams() -> None:
    """Let standard streams that are closed lead nowhere.

    Otherwise the first file that is opened takes the place of one, and gets what is meant for it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            stream = open(number, mode, closefd=False)  # noqa: SIM115  (of the process)
            setattr(sys, name, stream)


def complain(line: str) -> None:
    """Print a line on the error stream; where that cannot be written, the exit code must do."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        lead_nowhere(sys.stderr)


def lead_nowhere(*streams: TextIO) -> None:
    """Send what is left in the buffers nowhere, so that the end of the process is quiet."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class PatientStream:
    """A stream for a program that goes on when nobody reads it any more: then it leads nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; return its length, whether it could be written or not."""
        try:
            return self._stream.write(text)
        except OSError:
            lead_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write what is in the buffer, if it can be written."""
        try:
            self._stream.flush()
        except OSError:
            lead_nowhere(self._stream)


def outlive_readers() -> None:
    """Let this process go on when its output and its errors are read by nobody any more."""
    open_closed_streams()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, PatientStream):
            setattr(sys, name, PatientStream(stream))
