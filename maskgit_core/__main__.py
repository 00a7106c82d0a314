"""`python -m maskgit_core <command>`."""

import atexit
import contextlib
import os
import signal
import sys


def leave_at_once() -> None:
    """Let Ctrl-C and SIGTERM end this process with exit code 130 or 143, whatever it does.

    For a program that is still loading: there is nothing to clean up, and an exception in the
    midst of an import would be a page of traceback.
    """

    def end(number: int, frame: object) -> None:
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def run() -> int:
    """Run the command line of this process; return its exit code."""
    leave_at_once()
    from maskgit_core.cli.main import main

    return main()


def leave(code: int) -> None:
    """End the process with the exit code, at once.

    While Python takes itself apart, for a part of a second where torch is loaded, a signal has its
    usual effect again: a command whose work is done would seem to have been killed.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(run())
