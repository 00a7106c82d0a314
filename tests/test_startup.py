"""What is said before a model is loaded, and how the server ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from commands import ROOT, free_port
from demo.startup import check_address, check_folder
from waiting import wait_for


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_ports_that_do_not_exist(port) -> None:
    with pytest.raises(ValueError, match="port must be from 1 to 65535"):
        check_address(None, port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "\ud800", "a" * 300, "300.1.1.1"])
def test_hosts_that_are_not_this_machine(host) -> None:
    with pytest.raises(ValueError, match="host must be an address of this machine"):
        check_address(host, None)


def test_a_port_in_use_is_said() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ValueError, match="in use"):
            check_address(None, other.getsockname()[1])
    check_address(None, None)
    check_address("localhost", None)
    check_address("0.0.0.0", None)


def test_folders_in_which_nothing_can_be_written(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    (tmp_path / "file").write_bytes(b"")
    for bad in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ValueError, match="GRADIO_TEMP_DIR"):
            check_folder(bad)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--port", "99999"], "port must be from 1 to 65535"),
        (["--host", "192.0.2.1"], "host must be an address of this machine"),
    ],
)
def test_the_program_says_it_in_one_line(more, says) -> None:
    ended = subprocess.run(
        [sys.executable, "app.py", *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("app.py: ") and says in line


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM")
@pytest.mark.parametrize("as_first_process", [False, True])
def test_sigterm_ends_it(tiny_checkpoint, tmp_path, as_first_process) -> None:
    port = free_port()
    command = [sys.executable, "app.py", "--checkpoint", str(tiny_checkpoint), "--port", str(port)]
    if as_first_process:
        if subprocess.run(["unshare", "--fork", "--pid", "true"], check=False).returncode:
            pytest.skip("this system gives no namespace")
        command = ["unshare", "--fork", "--pid", "--kill-child", *command]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, stdout=log)
    try:
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), 120)
        os.kill(_child_of(server.pid) if as_first_process else server.pid, signal.SIGTERM)
        # Four seconds on a quiet machine; a container's engine would kill it after ten.
        status = server.wait(60)
        assert status in (128 + signal.SIGTERM, -signal.SIGTERM)
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        server.kill()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return bool(answer.read())
    except OSError:
        return False


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
