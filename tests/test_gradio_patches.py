"""A server's memory stays level: nothing is kept of calls that are over, nor of every size."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import waiting
from browser_model import tiny_model
from demo.hardening import gradio_patches
from demo.serving.local import LocalRunner
from demo.serving.models import ModelHolder
from page_client import OWN_SETTINGS, visit

ROOT = Path(__file__).parent.parent
wait_for = partial(waiting.wait_for, seconds=60.0)
ARGUMENTS = [["sea"], 1, 0, 3, *OWN_SETTINGS]


class Page:
    """A running page and what Gradio keeps in it."""

    def __init__(self) -> None:
        from demo.launch import launch_options, queue_options
        from demo.ui import build_demo

        models = ModelHolder(tiny_model(pause=0.02))
        self.demo = build_demo(models, runner=LocalRunner(models))
        self.demo.queue(**queue_options())
        _, url, _ = self.demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
        self.url = url.rstrip("/")
        self.queue = self.demo._queue

    def kept(self) -> set[str]:
        """Names of the calls of which anything is kept."""
        holder = self.demo.app.state_holder
        return {
            *holder.session_data,
            *holder.time_last_used,
            *self.queue.pending_event_ids_session,
            *self.queue.pending_messages_per_session,
            *self.queue.event_ids_to_events,
            *self.demo.app.iterators,
        }

    def post(self) -> str:
        """Ask for an image and return the name of the call."""
        body = json.dumps({"data": ARGUMENTS}).encode()
        headers = {"Content-Type": "application/json"}
        address = f"{self.url}/gradio_api/call/generate"
        with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as answer:
            return json.load(answer)["event_id"]

    def fetch(self, name: str) -> tuple[str, list]:
        """Return the last event of a call's answer."""
        address = f"{self.url}/gradio_api/call/generate/{name}"
        with urllib.request.urlopen(address, timeout=60) as stream:
            event, data = re.findall(r"event: (\w+)\ndata: (.*)\n", stream.read().decode())[-1]
        return event, json.loads(data)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    served = Page()
    yield served
    served.demo.close()


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch) -> None:
    monkeypatch.setattr(gradio_patches, "LOOK_SECONDS", 0.1)


def test_nothing_is_kept_of_calls_that_ended_or_were_left(page, monkeypatch) -> None:
    tables = []
    monkeypatch.setattr(page.queue, "_get_df", tables.append)
    met = visit(page.url, 4, asks=3, steps=3, leave=2)
    assert not met["failed"] and met["done"] and met["left"]
    wait_for(lambda: not page.kept())
    assert tables == []


def test_an_answer_waits_for_its_client(page) -> None:
    name = page.post()
    wait_for(lambda: name not in page.queue.event_ids_to_events)
    time.sleep(3 * gradio_patches.LOOK_SECONDS)
    assert name not in page.demo.app.state_holder.session_data
    event, (last,) = page.fetch(name)
    assert event == "complete" and last["done"] and len(last["images"]) == 1
    wait_for(lambda: not page.kept())


def test_an_answer_that_nobody_fetches_is_dropped(page, monkeypatch) -> None:
    monkeypatch.setattr(gradio_patches, "LOOKS", 3)
    name = page.post()
    assert name in page.kept()
    wait_for(lambda: not page.kept())


def test_a_client_that_calls_again_keeps_its_session(page) -> None:
    from gradio_client import Client

    client = Client(page.url, verbose=False)
    for _ in range(2):
        assert client.predict(*ARGUMENTS, api_name="/generate")["done"]
    assert client.session_hash in page.demo.app.state_holder.session_data
    session = page.demo.app.state_holder.session_data[client.session_hash]
    assert not session.config_values


# Megabytes that two hundred products of new sizes leave behind.
PRODUCTS = """
import ctypes
from demo.environment import prepare_environment
prepare_environment()
import torch
from maskgit_core.devices.prepack import PackedLinear, packing_works

class Heap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "mapped",
        "usmblks", "fsmblks", "used", "fordblks", "keepcost",
    )]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Heap
torch.set_num_threads(1)
layer = PackedLinear(torch.randn(256, 256), None) if packing_works() else torch.nn.Identity()
kept = []
with torch.no_grad():
    for first in (100, 300):
        for rows in range(first, first + 200):
            layer(torch.randn(rows, 256))
        heap = libc.mallinfo2()
        kept.append(heap.mapped + heap.used)
print((kept[1] - kept[0]) / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc for what is allocated")
def test_products_of_new_sizes_leave_nothing_behind() -> None:
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    environment = {key: text for key, text in os.environ.items() if key not in names}
    command = [sys.executable, "-c", PRODUCTS]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 10
