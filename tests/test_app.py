"""The command that starts the page: what it refuses, and what it outlives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import tiny
from maskgit_core.weights.checkpoint import save_checkpoint

ROOT = Path(__file__).parent.parent


def test_missing_or_damaged_checkpoint_is_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    for folder in (tmp_path / "missing", tmp_path / "damaged"):
        done = subprocess.run(
            [sys.executable, "app.py", "--checkpoint", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert folder.name in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "nowhere.invalid"], "host must be an address of this machine"),
        (["--host", "203.0.113.7"], "host must be an address of this machine"),
        (["--host", "not a name"], "host must be an address of this machine"),
        (["--port", "70000"], "port must be from 1 to 65535"),
    ],
)
def test_an_address_that_is_none_of_this_machine_ends_at_once(words, says, capsys) -> None:
    import app

    assert app.main([*words, "--checkpoint", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("app.py: ") and says in line


def test_the_page_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    save_checkpoint(
        checkpoint,
        tokenizer=tiny.tokenizer(),
        transformer=tiny.transformer(),
        classes=list(tiny.CLASSES),
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--checkpoint", str(checkpoint), "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}  # each line is written at once
    page = subprocess.Popen(command, cwd=ROOT, text=True, env=environ, **pipes)
    try:
        page.stdout.close()
        for _ in range(600):
            time.sleep(0.1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
                    assert answer.status == 200
                break
            except (urllib.error.URLError, ConnectionError):
                assert page.poll() is None, page.stderr.read()
        else:
            pytest.fail("the page was not served within a minute")
        time.sleep(1)
        assert page.poll() is None
    finally:
        page.terminate()
        assert "Traceback" not in page.communicate(timeout=60)[1]
