"""A page of its own under samples of what strangers may send, with ordinary visitors beside it.

Loopback only. Prints a table: `pytest tests/test_strangers.py -s`. In the environment,
MASKGIT_STRANGERS_SECONDS says how long each sample is (1.5 if not given),
MASKGIT_STRANGERS_VISITORS how many ordinary visitors there are (3). The bounds asserted here are
loose, for machines of any speed; the table has the times.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from commands import ROOT, free_port
from hostile_images import HOSTILE
from odd_values import DEAR
from page_client import FILE, GENERATE, MASK, PHOTO
from waiting import wait_for

SECONDS = float(os.environ.get("MASKGIT_STRANGERS_SECONDS", "1.5"))
VISITORS = int(os.environ.get("MASKGIT_STRANGERS_VISITORS", "3"))
LOOSE_SECONDS = 20.0 + VISITORS  # past it something hangs, on any machine
ADDRESS = "10.66.6.6"


class Visitor:
    """A client with an address of its own, as a proxy on this machine would tell it."""

    def __init__(self, url: str, address: str) -> None:
        headers = {"X-Forwarded-For": address}
        self.web = httpx.Client(base_url=url, timeout=60, headers=headers)

    def upload(self, content: bytes) -> httpx.Response:
        return self.web.post("/gradio_api/upload", files={"files": ("photo.png", content)})

    def end_of(self, name: str, data: list[object]) -> str:
        """Last event of a call of a documented function; the status where it is refused."""
        answer = self.web.post(f"/gradio_api/call/{name}", json={"data": data})
        if answer.status_code != 200:
            return str(answer.status_code)
        stream = self.web.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text
        return re.findall(r"^event: (\w+)$", stream, re.MULTILINE)[-1]

    def open_photo(self) -> str:
        path = self.upload(PHOTO).json()[0]
        return self.end_of("inpaint", [{"path": path} | FILE, MASK, "sea", 1, 0, *GENERATE[3:]])


@dataclass
class Measured:
    """What a sample cost, and what others saw meanwhile."""

    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    health: float = 0.0
    opened: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)


@dataclass
class Server:
    """The page's process."""

    url: str
    pid: int
    folder: Path

    def memory(self) -> float:
        """Of the process and its children, in MB; 0 where the system does not tell."""
        total = 0
        for place in Path("/proc").glob("[0-9]*"):
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                if int(place.name) == self.pid or int(fields[1]) == self.pid:
                    total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, ValueError):
                continue
        return total / 2**20

    def files(self) -> tuple[int, int]:
        """Number and bytes of the files it keeps."""
        there = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        return len(there), sum(there)


@pytest.fixture(scope="module")
def server(tiny_checkpoint, tmp_path_factory) -> Iterator[Server]:
    folder, port = tmp_path_factory.mktemp("strangers"), free_port()
    command = [sys.executable, "app.py", "--checkpoint", str(tiny_checkpoint), "--port", str(port)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(folder / "files")}
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, stdout=log)
    try:
        wait_for(lambda: _is_up(url), 120)
        yield Server(url, process.pid, folder / "files")
        assert process.poll() is None
        assert "Traceback" not in (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


# ---- samples: each yields a request's outcome, again and again -----------------------------------


def dear_bodies(visitor: Visitor) -> Iterator[str]:
    headers = {"Content-Type": "application/json"}
    for place in ("cancel", "reset", "queue/join", "call/generate"):
        for body in DEAR.values():
            answer = visitor.web.post(f"/gradio_api/{place}", content=body, headers=headers)
            assert 400 <= answer.status_code < 500
            assert len(answer.content) < 300
            yield str(answer.status_code)


def long_ids(visitor: Visitor) -> Iterator[str]:
    for name in ("x" * 5_000_000, "../" * 20, "é"):
        body = {"data": [], "fn_index": 0, "session_hash": name}
        yield str(visitor.web.post("/gradio_api/queue/join", json=body).status_code)
        query = {"session_hash": name[:2000]}
        yield str(visitor.web.get("/gradio_api/queue/data", params=query).status_code)


def hostile_photos(visitor: Visitor) -> Iterator[str]:
    for make in HOSTILE.values():
        answer = visitor.upload(make())
        if answer.status_code != 200:
            yield str(answer.status_code)
            continue
        file = {"path": answer.json()[0]} | FILE
        yield visitor.end_of("inpaint", [file, MASK, "sea", 1, 0, *GENERATE[3:]])


def many_events(visitor: Visitor) -> Iterator[str]:
    for number in range(40):
        body = {"data": GENERATE, "session_hash": f"flood{number}-{time.monotonic_ns()}"}
        yield str(visitor.web.post("/gradio_api/call/generate", json=body).status_code)


def many_files(visitor: Visitor) -> Iterator[str]:
    for _ in range(10):
        yield str(visitor.upload(b"").status_code)
    thousand = [("files", (f"{number}.png", b"")) for number in range(1000)]
    yield str(visitor.web.post("/gradio_api/upload", files=thousand).status_code)
    yield str(visitor.upload(bytes(10_000_000)).status_code)


def broken_uploads(visitor: Visitor) -> Iterator[str]:
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
        f"X-Forwarded-For: {ADDRESS}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    )
    for _ in range(5):
        with socket.create_connection((visitor.web.base_url.host, visitor.web.base_url.port)) as s:
            s.sendall(head.encode() + bytes(200_000))
        yield "broken off"


def half_heads(visitor: Visitor) -> Iterator[str]:
    place = (visitor.web.base_url.host, visitor.web.base_url.port)
    held = [socket.create_connection(place) for _ in range(50)]
    for each in held:
        each.sendall(b"GET / HTTP/1.1\r\nX-A: 1")
        yield "held"
    for each in held:
        each.close()


SAMPLES: dict[str, Callable[[Visitor], Iterator[str]]] = {
    sample.__name__: sample
    for sample in (
        dear_bodies, long_ids, hostile_photos, many_events, many_files, broken_uploads, half_heads
    )
}  # fmt: skip


# ---- the test ------------------------------------------------------------------------------------


def _others(server: Server, measured: Measured, over: threading.Event) -> list[threading.Thread]:
    """Ordinary visitors, until it is over."""

    def watch_health() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as web:
            while not over.is_set():
                began = time.monotonic()
                assert web.get("/healthz").status_code == 200
                measured.health = max(measured.health, time.monotonic() - began)
                over.wait(0.05)

    def open_and_make(number: int) -> None:
        visitor = Visitor(server.url, f"10.1.0.{number}")
        while not over.is_set():
            began = time.monotonic()
            measured.ends[visitor.open_photo()] += 1
            measured.opened = max(measured.opened, time.monotonic() - began)
            measured.ends[visitor.end_of("generate", GENERATE)] += 1
            over.wait(0.2)

    threads = [threading.Thread(target=watch_health)]
    threads += [
        threading.Thread(target=open_and_make, args=(number,)) for number in range(VISITORS)
    ]
    for thread in threads:
        thread.start()
    return threads


def _measure(server: Server, sample: Callable[[Visitor], Iterator[str]]) -> Measured:
    measured, over = Measured(), threading.Event()
    threads = _others(server, measured, over)
    visitor, until = Visitor(server.url, ADDRESS), time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            for outcome in sample(visitor):
                measured.requests += 1
                measured.answers[outcome] += 1
                if time.monotonic() >= until and measured.requests > 3:
                    break
    finally:
        over.set()
        for thread in threads:
            thread.join(90)
    assert not any(thread.is_alive() for thread in threads)
    return measured


def test_no_sample_stops_the_page(server) -> None:
    quiet = _measure(server, lambda visitor: iter(["200"] if not time.sleep(0.5) else []))
    memory, rows = server.memory(), []
    for name, sample in SAMPLES.items():
        measured = _measure(server, sample)
        number, size = server.files()
        answers = " ".join(f"{what} x {n}" for what, n in measured.answers.most_common(3))
        rows.append(
            f"{name:15s} {measured.requests:5d}  {answers:32.32s} {measured.health:7.2f} "
            f"{measured.opened:7.2f} {server.memory():6.0f} MB {number:5d} files {size / 1e6:6.1f}"
        )
        assert set(measured.ends) == {"complete"}, (name, measured.ends)
        assert measured.health < LOOSE_SECONDS and measured.opened < LOOSE_SECONDS, name
        assert number < 2_000
    print(f"\nquiet: healthz {quiet.health:.2f} s, a photo {quiet.opened:.2f} s, {memory:.0f} MB")
    print("sample       requests answers                          healthz  a photo  memory, disk")
    print("\n".join(rows))


def test_a_newcomer_generates_while_one_address_sends_all_it_can(server) -> None:
    flood = Visitor(server.url, ADDRESS)
    answers: Counter[int] = Counter()
    for number in range(300):
        body = {"data": GENERATE, "session_hash": f"all{number}"}
        answers[flood.web.post("/gradio_api/call/generate", json=body).status_code] += 1
    for number in range(20):
        assert Visitor(server.url, f"10.2.0.{number}").end_of("generate", GENERATE) == "complete"


def test_a_visitor_keeps_photo_and_session_through_floods(server) -> None:
    mine, flood = Visitor(server.url, "10.3.0.1"), Visitor(server.url, ADDRESS)
    path = mine.upload(PHOTO).json()[0]
    for number in range(150):
        body = {"data": [], "session_hash": f"s{number}"}
        flood.web.post("/gradio_api/call/classes", json=body)
        flood.upload(b"x" * 1000)
    file = {"path": path} | FILE
    assert mine.end_of("inpaint", [file, MASK, "sea", 1, 0, *GENERATE[3:]]) == "complete"


def test_connections_that_send_nothing_useful_are_closed(server) -> None:
    host, port = httpx.URL(server.url).host, httpx.URL(server.url).port
    with (
        socket.create_connection((host, port)) as silent,
        socket.create_connection((host, port)) as s,
    ):
        s.sendall(b"GET /healthz HTTP/1.1\r\nX-Drip: ")
        for each in (silent, s):
            each.settimeout(120)
            assert each.recv(100) == b""


def test_nothing_is_left_of_uploads_that_broke_off(server) -> None:
    list(broken_uploads(Visitor(server.url, ADDRESS)))
    wait_for(lambda: not [p for p in server.folder.glob("*") if p.is_file()])


def test_other_sites_and_other_names_are_refused(server) -> None:
    web = httpx.Client(base_url=server.url, timeout=60)
    for name in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""):
        assert web.get("/healthz", headers={"Host": name}).status_code in (400, 421), name
    for name in ("localhost", "127.0.0.1:7860", "LOCALHOST:1"):
        assert web.get("/healthz", headers={"Host": name}).status_code == 200, name
    files = {"files": ("a.png", PHOTO)}
    for origin in ("https://evil.example", "null", "http://localhost:1"):
        answer = web.post("/gradio_api/upload", files=files, headers={"Origin": origin})
        assert answer.status_code == 403, origin
    answer = web.post("/gradio_api/upload", files=files, headers={"Origin": server.url})
    assert answer.status_code == 200
    config = web.get("/config", headers={"X-Forwarded-Host": "evil.example"}).text
    assert "evil.example" not in config
    assert web.get("/metrics").status_code == 404
    assert web.get("/gradio_api/queue/data?session_hash=unknown").status_code == 404
    json.loads(config)
