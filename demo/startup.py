"""What is checked before a model is loaded, and how the server ends when it is told to."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

END_SECONDS = 4.0  # from the signal to the end, whatever still runs; a container kills after ten
SAY_SECONDS = 0.5  # for the last sentences to reach their visitors


def check_address(host: str | None, port: int | None) -> None:
    """Refuse an address that the server could not listen on.

    Args:
        host: None is this machine alone.
        port: None is the first free one from 7860 on.

    Raises:
        ValueError: one sentence.
    """
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"port must be from 1 to 65535; got {port}")
    name = (host or "127.0.0.1").strip("[]")
    try:
        found = socket.getaddrinfo(name, port or 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ValueError(f"host must be an address of this machine; got {host}") from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as trial:
        if os.name != "nt":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            raise ValueError(_why(error, host, port)) from None


def _why(error: OSError, host: str | None, port: int | None) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; name another one with --port"
    if error.errno == errno.EACCES:
        return f"port {port} needs the rights of an administrator; take one above 1023"
    return f"host must be an address of this machine; got {host}"


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder for visitors' files in which nothing can be written.

    Raises:
        ValueError: one sentence.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"visitors' files cannot be kept in {folder}: {error.strerror}; name another folder "
            "with GRADIO_TEMP_DIR"
        ) from None


class Stopping:
    """SIGTERM and Ctrl-C, from the first second on.

    The first process of a container has no usual reaction to SIGTERM: without a handler it is
    killed ten seconds later. Until `wait` is called, a signal ends the process where it stands.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._told = threading.Event()
        self._status = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._status = 128 + number
        if self._told.is_set():
            os._exit(self._status)  # told twice
        self._told.set()
        if not self._waiting:
            raise SystemExit(self._status)

    def wait(self, end: Callable[[], None]) -> int:
        """Wait for a signal, call `end`, and return the exit status.

        The process ends after `END_SECONDS` even where `end` does not.
        """
        self._waiting = True
        while not self._told.wait(1.0):  # without a time, Windows would not see the signal
            pass
        last = threading.Timer(END_SECONDS, os._exit, [self._status])
        last.daemon = True
        last.start()
        end()
        return self._status
