"""`python -m maskgit_core <command>`."""

import sys

from maskgit_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
