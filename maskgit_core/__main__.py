"""`python -m maskgit_core <command>`."""

import sys


def run() -> int:
    """Run the command line of this process; return its exit code."""
    from maskgit_core.cli.signals import leave_at_once

    leave_at_once()
    from maskgit_core.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
