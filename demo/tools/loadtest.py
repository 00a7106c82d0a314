"""Many visitors at once against a running page: what they get, how long it takes, what it costs.

Each client is a thread that asks through the page's API for one thing after another, in turn a new
image and a repaint, and sometimes leaves in the middle: it closes the connection.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskgit_core.cli.main import Parser, run_command

REFUSALS = ("waiting already", "Queue is full", "HTTP Error 503")
PATIENCE_SECONDS = 600.0
# Settings of decoding other than the steps: the model's own.
SETTINGS = (None,) * 8
SEED = object()  # stands where each request has a seed of its own


@dataclass
class Tally:
    """What all clients have met so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: str, wait: float | None = None, total: float | None = None) -> None:
        """Count a request; times in seconds."""
        with self.lock:
            self.outcomes[outcome] += 1
            if wait is not None:
                self.waits.append(wait)
            if total is not None:
                self.totals.append(total)


def resident_megabytes(pid: int) -> float:
    """Memory that a process holds, on Linux.

    Raises:
        OSError: there is no such process, or this is no Linux.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"process {pid} tells nothing of its memory")


def _as_text(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _wishes(url: str, steps: int) -> list[tuple[str, list[Any]]]:
    """Name and arguments of what clients ask for, `SEED` where each puts a seed."""
    _, (classes, *_) = next(_events(url, "classes", []))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
    mask = Image.new("L", photo.size, 0)
    mask.paste(255, (110, 70, 210, 170))
    return [
        ("generate", [[classes[-1]], 1, SEED, steps, *SETTINGS]),
        ("inpaint", [_as_text(photo), _as_text(mask), classes[0], 1, SEED, steps, *SETTINGS]),
    ]


def _events(url: str, name: str, arguments: list[Any]) -> Iterator[tuple[str, Any]]:
    """Call a function of the page; yield name and data of each event of its answer.

    To close the generator is to close the connection, as a visitor does who leaves.
    """
    address = f"{url.rstrip('/')}/gradio_api/call/{name}"
    body = json.dumps({"data": arguments}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        event_id = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}/{event_id}", timeout=PATIENCE_SECONDS) as stream:
        event = ""
        for line in stream:
            key, _, value = line.decode("utf-8").strip().partition(": ")
            if key == "event":
                event = value
            elif key == "data" and event != "heartbeat":
                yield event, json.loads(value)


def _one(url: str, name: str, arguments: list[Any], leave_after: int | None, tally: Tally) -> None:
    """Ask once; with `leave_after`, leave at so many events, if it is not done by then."""
    began = time.monotonic()
    first: float | None = None
    last: Any = None
    try:
        with closing(_events(url, name, arguments)) as events:
            for seen, (event, data) in enumerate(events, 1):
                if event == "error":
                    raise RuntimeError(str(data))
                last = data[0]
                if first is None and last["step"]:
                    first = time.monotonic() - began
                if leave_after is not None and seen >= leave_after and not last["done"]:
                    tally.add("left", first)
                    return
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        refused = any(sign in text for sign in REFUSALS)
        tally.add("refused" if refused else "failed")
        if not refused:
            with tally.lock:
                tally.errors[f"{type(error).__name__}: {text}"[:200]] += 1
        return
    done = last is not None and last["done"] and bool(last["images"])
    tally.add("done" if done else "failed", first, time.monotonic() - began)


def _client(
    url: str,
    index: int,
    until: float,
    leave: float,
    most: int | None,
    wishes: list[tuple[str, list[Any]]],
    tally: Tally,
) -> None:
    chance = random.Random(index)
    turn = index
    while time.monotonic() < until and (most is None or turn < index + most):
        name, arguments = wishes[turn % 2]
        turn += 1
        seed = chance.randrange(2**31 - 64)
        sent = [seed if value is SEED else value for value in arguments]
        steps = sent[-1 - len(SETTINGS)]
        leaves = chance.random() < leave
        _one(url, name, sent, chance.randint(1, max(1, steps - 1)) if leaves else None, tally)
        time.sleep(chance.uniform(0.0, 0.3))


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of the values lies; nan of none."""
    return float(np.percentile(values, 100 * share)) if values else float("nan")


def run_load(
    url: str,
    *,
    clients: int = 32,
    seconds: float = 120.0,
    leave: float = 0.3,
    steps: int = 12,
    most: int | None = None,
    pid: int | None = None,
) -> dict[str, Any]:
    """Let many clients use a page and report what they met.

    Args:
        url: of the page.
        clients: how many at once.
        seconds: how long new requests are made; those under way are waited for.
        leave: share of the requests that are left in the middle.
        steps: decoding steps of each.
        most: requests of a client, at most.
        pid: of the server, to watch its memory.

    Returns:
        Counts (`done`, `failed`, `refused`, `left`, `accepted`), seconds at the 50th and 95th
        per cent of waiting for the first step and of the whole (`wait_p50`, ...), images a second,
        and, with `pid`, mean megabytes in the first and last minute.

    Raises:
        OSError: nothing answers at that address.
    """
    tally = Tally()
    wishes = _wishes(url, steps)
    began = time.monotonic()
    until = began + seconds
    threads = [
        threading.Thread(
            target=_client, args=(url, i, until, leave, most, wishes, tally), daemon=True
        )
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if pid is not None:
            tally.memory.append((time.monotonic() - began, resident_megabytes(pid)))
        time.sleep(0.5)
    took = time.monotonic() - began
    counts = {name: tally.outcomes[name] for name in ("done", "failed", "refused", "left")}
    report: dict[str, Any] = {
        **counts,
        "accepted": counts["done"] + counts["failed"] + counts["left"],
        "errors": dict(tally.errors),
        "seconds": took,
        "images_per_second": counts["done"] / took,
    }
    for name, values in (("wait", tally.waits), ("total", tally.totals)):
        report |= {f"{name}_p{p}": percentile(values, p / 100) for p in (50, 95)}
    if tally.memory:
        minute = min(60.0, took / 2)
        first = [m for at, m in tally.memory if at <= minute]
        last = [m for at, m in tally.memory if at >= took - minute]
        report |= {"megabytes_first": float(np.mean(first)), "megabytes_last": float(np.mean(last))}
    return report


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="python -m demo.tools.loadtest",
        description="Let many clients use a running page.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--url", required=True, help="address of a running page")
    parser.add_argument("--clients", type=int, default=32, help="visitors at once")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long they ask for more")
    parser.add_argument("--leave", type=float, default=0.3, help="share left in the middle")
    parser.add_argument("--steps", type=int, default=12, help="decoding steps of each request")
    parser.add_argument("--pid", type=int, default=None, help="server process, to see its memory")
    parser.set_defaults(run=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    """Print the report; the exit code is 1 where something failed."""
    if arguments.clients < 1 or arguments.seconds <= 0 or not 0 <= arguments.leave <= 1:
        raise ValueError("clients and seconds must be above 0, and leave from 0 to 1")
    report = run_load(
        arguments.url,
        clients=arguments.clients,
        seconds=arguments.seconds,
        leave=arguments.leave,
        steps=arguments.steps,
        pid=arguments.pid,
    )
    for name, value in report.items():
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(run_command(build_parser(), None))
