"""Many visitors at once against a running page: what they get, how long it takes, what it costs.

Each client is a thread that asks through `gradio_client` for one thing after another, in turn new
images and a repaint, and sometimes leaves in the middle.
"""

from __future__ import annotations

import base64
import io
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REFUSALS = ("waiting already", "Queue is full")


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


def _requests(classes: list[str], steps: int) -> list[dict[str, Any]]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
    mask = Image.new("L", photo.size, 0)
    mask.paste(255, (110, 70, 210, 170))
    shared = {"num_steps": steps}
    edit = {"image": _as_text(photo), "mask": _as_text(mask), "label": classes[0]}
    return [
        {"api_name": "/generate", "classes": [classes[-1]], **shared},
        {"api_name": "/inpaint", **edit, **shared},
    ]


def _one(client: Any, wish: dict[str, Any], leave_after: float | None, tally: Tally) -> None:
    """Ask once; with `leave_after` seconds, leave then if it is not done."""
    began = time.monotonic()
    job = client.submit(**wish)
    first: float | None = None
    seen = 0
    while not job.done():
        now = time.monotonic() - began
        outputs = job.outputs()
        if first is None and any(output["step"] for output in outputs[seen:]):
            first = now
        seen = len(outputs)
        if leave_after is not None and now > leave_after:
            job.cancel()
            tally.add("left")
            return
        time.sleep(0.05)
    total = time.monotonic() - began
    try:
        result = job.result(timeout=5)
    except Exception as error:
        text = " ".join(str(error).split())
        if any(sign in text for sign in REFUSALS):
            tally.add("refused")
            return
        tally.add("failed")
        with tally.lock:
            tally.errors[f"{type(error).__name__}: {text}"[:200]] += 1
        return
    done = bool(result["done"]) and bool(result["images"])
    tally.add("done" if done else "failed", first or total, total)


def _client(url: str, index: int, until: float, leave: float, steps: int, tally: Tally) -> None:
    from gradio_client import Client

    chance = random.Random(index)
    client = None
    turn = index
    while time.monotonic() < until:
        try:
            client = client or Client(url, verbose=False)
            wishes = _requests(client.predict(api_name="/classes"), steps)
            break
        except Exception:
            time.sleep(0.5)
    else:
        return
    while time.monotonic() < until:
        wish = {**wishes[turn % 2], "seed": chance.randrange(2**31 - 64)}
        turn += 1
        usual = float(np.median(tally.totals)) if tally.totals else 10.0
        leaves = chance.random() < leave
        _one(client, wish, chance.uniform(0.1, 0.9) * usual if leaves else None, tally)
        if leaves:
            client.close()
            client = Client(url, verbose=False)  # another visitor takes the seat
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
    pid: int | None = None,
) -> dict[str, Any]:
    """Let many clients use a page and report what they met.

    Args:
        url: of the page.
        clients: how many at once.
        seconds: how long new requests are made; those under way are waited for.
        leave: share of the requests that are left in the middle.
        steps: decoding steps of each.
        pid: of the server, to watch its memory.

    Returns:
        Counts (`done`, `failed`, `refused`, `left`, `accepted`), seconds at the 50th and 95th
        per cent of waiting for the first step and of the whole (`wait_p50`, ...), images a second,
        and, with `pid`, mean megabytes in the first and last minute.
    """
    tally = Tally()
    began = time.monotonic()
    until = began + seconds
    threads = [
        threading.Thread(target=_client, args=(url, i, until, leave, steps, tally), daemon=True)
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
