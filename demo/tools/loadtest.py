"""Many visitors at once against a running page: what they get, how long it takes, what it costs.

A file for Locust, with its options: `python -m demo.tools.loadtest --host http://127.0.0.1:7860`
plays 32 visitors (`--users`) for two minutes (`--run-time`). Each asks through the page's API for
one thing after another, a new image or a repaint, and sometimes leaves in the middle: it closes the
connection. In Locust's table `first step` is the wait and `finished` the whole of a request, in
milliseconds; their numbers, and those of `left` and `refused`, say how many requests ended so.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import sys
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np
from PIL import Image

from demo.settings import FIELDS

try:
    from locust import User, between, events, task
except ImportError:
    raise SystemExit("the load test needs Locust: pip install -r requirements-dev.txt") from None

# After Locust, which makes them wait without a thread.
import gevent
import psutil
import requests

PATIENCE_SECONDS = 600
REFUSALS = ("waiting already", "Queue is full", "503")
# Settings of decoding other than the steps: the model's own.
SETTINGS = (None,) * (len(FIELDS) - 1)


@events.init_command_line_parser.add_listener
def _options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(
        users=32,
        spawn_rate=32,
        run_time="2m",
        stop_timeout=str(PATIENCE_SECONDS),
        headless=True,
        only_summary=True,
    )
    parser.add_argument("--leave", type=float, default=0.3, help="share left in the middle")
    parser.add_argument("--steps", type=int, default=12, help="decoding steps of each request")
    parser.add_argument("--pid", type=int, default=0, help="server process, to see its memory")


class Visitor(User):
    """Asks for one thing after another."""

    wait_time = between(0.0, 0.3)

    def on_start(self) -> None:
        """Prepare what is asked for."""
        _, (classes, *_) = next(self.events("classes", []))
        pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
        mask = Image.new("L", photo.size, 0)
        mask.paste(255, (110, 70, 210, 170))
        self.label, self.edit = classes[-1], [_as_text(photo), _as_text(mask), classes[0]]

    @task
    def generate(self) -> None:
        """A new image."""
        self.ask("generate", [self.label])

    @task
    def inpaint(self) -> None:
        """A part of a photo."""
        self.ask("inpaint", *self.edit)

    def ask(self, name: str, *what: Any) -> None:
        """Ask once, and count what comes of it."""
        options, began = self.environment.parsed_options, time.monotonic()
        seed, steps = random.randrange(2**31 - 64), options.steps
        leave_after = random.randint(1, max(1, steps - 1))
        leaves, first, last = random.random() < options.leave, None, None
        try:
            with closing(self.events(name, [*what, 1, seed, steps, *SETTINGS])) as answer:
                for seen, (event, data) in enumerate(answer, 1):
                    if event == "error":
                        raise RuntimeError(str(data))
                    last = data[0]
                    if first is None and last["step"]:
                        first = time.monotonic() - began
                        self.count("first step", first)
                    if leaves and seen >= leave_after and not last["done"]:
                        self.count("left", 0)
                        return
            if not (last and last["done"] and last["images"]):
                raise RuntimeError("the answer ended before the images")
            self.count("finished", time.monotonic() - began)
        except (OSError, ValueError, RuntimeError) as error:
            refused = any(sign in str(error) for sign in REFUSALS)
            self.count("refused" if refused else "failed", 0, None if refused else error)

    def count(self, name: str, seconds: float, error: Exception | None = None) -> None:
        """Put a line into the table."""
        self.environment.events.request.fire(
            request_type="page",
            name=name,
            response_time=1000 * seconds,
            response_length=0,
            exception=error,
            context={},
        )

    def events(self, name: str, arguments: list[Any]) -> Generator[tuple[str, Any]]:
        """Call a function of the page; yield name and data of each event of its answer.

        To close the generator is to close the connection, as a visitor does who leaves.
        """
        address = f"{str(self.host).rstrip('/')}/gradio_api/call/{name}"
        # A new connection each time: one that is kept open the server closes when it is idle.
        answer = requests.post(address, json={"data": arguments}, timeout=PATIENCE_SECONDS)
        answer.raise_for_status()
        address = f"{address}/{answer.json()['event_id']}"
        with requests.get(address, stream=True, timeout=PATIENCE_SECONDS) as stream:
            event = ""
            for line in stream.iter_lines(chunk_size=1):
                key, _, value = line.decode().partition(": ")
                if key == "event":
                    event = value
                elif key == "data" and event != "heartbeat":
                    yield event, json.loads(value)


def _as_text(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@events.test_start.add_listener
def _watch_memory(environment: Any, **_: Any) -> None:
    """Print the server's memory, the mean of the first and of the last minute."""
    options = environment.parsed_options
    if options is None or not options.pid:
        return
    process, seen = psutil.Process(options.pid), []

    def watch() -> None:
        while True:
            seen.append(process.memory_info().rss / 2**20)
            gevent.sleep(1)

    watcher = gevent.spawn(watch)

    @events.test_stop.add_listener
    def report(**_: Any) -> None:
        watcher.kill()
        minute = min(60, -(-len(seen) // 2))
        print(f"megabytes: {np.mean(seen[:minute]):.0f} first, {np.mean(seen[-minute:]):.0f} last")


if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "locust", "-f", __file__, *sys.argv[1:]])
