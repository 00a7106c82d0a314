"""Run a command of ours in a process of its own, against the fake hub.

    python with_fake_hub.py MODULE ARGUMENTS...

The published files there are small ones, so the hashes of the known weights are replaced by those
of FAKE_HUB_FILES: JSON, path -> [hash, bytes]. Everything else is as it is, the Hub's client and
its native transfer included.
"""

import json
import os
import runpy
import sys
from dataclasses import replace

from maskgit_core.weights.known import KNOWN_WEIGHTS


def pinned(known, files):
    """Return a record with other hashes and sizes, where it has hashes at all."""

    def change(file):
        sha256, size = files.get(file.path, (file.sha256, file.size))
        return replace(file, sha256=sha256 if file.verified else file.sha256, size=size)

    changed = {part: change(getattr(known, part)) for part in ("tokenizer", "transformer")}
    return replace(known, **changed)


if __name__ == "__main__":
    files = json.loads(os.environ["FAKE_HUB_FILES"])
    for name, known in list(KNOWN_WEIGHTS.items()):
        KNOWN_WEIGHTS[name] = pinned(known, files)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
