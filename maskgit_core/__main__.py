"""`python -m maskgit_core <command>`."""

import os
import signal
import sys


def leave_at_once() -> None:
    """Let Ctrl-C and SIGTERM end this process with exit code 130 or 143, whatever it does.

    For a program that is still loading: there is nothing to clean up, and an exception in the
    midst of an import would be a page of traceback.
    """

    def leave(number: int, frame: object) -> None:
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


def run() -> int:
    """Run the command line of this process; return its exit code."""
    leave_at_once()
    from maskgit_core.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
