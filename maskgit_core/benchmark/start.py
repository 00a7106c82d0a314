"""The part of `benchmark` that starts the page: from the command to its first answer."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from maskgit_core.benchmark.models import is_random
from maskgit_core.benchmark.timing import Case, Setup, measured

LONGEST_START = 300.0
POLL_SECONDS = 0.02
STARTS = 3


def start_cases(setup: Setup) -> list[Case]:
    """The page with the model's checkpoint; none for random weights or without its program."""
    app = Path(setup.app)
    if not setup.app or not app.is_file() or is_random(setup.name):
        return []
    name = str(Path(setup.name).resolve()) if Path(setup.name).exists() else setup.name
    return [
        Case(
            "start",
            f"{app.name} to the first HTTP 200",
            "",
            lambda case: measured(case, [start_seconds(app, name) for _ in range(STARTS)]),
        )
    ]


def start_seconds(app: Path, checkpoint: str) -> float:
    """Start the page, and end it when it answers; return the seconds in between.

    Raises:
        ValueError: it ended, or did not answer in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, app.name, "--checkpoint", checkpoint]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=app.resolve().parent, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while not _answers(f"http://127.0.0.1:{port}"):
                if process.poll() is not None:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise ValueError(f"app must start; it ended: {' '.join(said)}")
                if time.perf_counter() - begin > LONGEST_START:
                    raise ValueError(f"app must answer within {LONGEST_START:.0f} s; it did not")
                time.sleep(POLL_SECONDS)
            return time.perf_counter() - begin
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(address: str) -> bool:
    # A proxy of the environment would be asked for this machine's own address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
