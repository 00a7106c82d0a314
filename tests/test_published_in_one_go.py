"""A published model by its name, from a fresh cache to a picture: the program and the page."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gradio_client import Client

import model_folders
from browser_page import browser, page, shoot, wait_done  # noqa: F401  (fixtures)
from demo.serving.catalogue import Lookout, known_entries
from fake_hub import RUNNER, facts, process_environment, running_hub, talk_to
from maskgit_core.weights import hub
from maskgit_core.weights.known import KNOWN_WEIGHTS
from published import TINY, published_files
from waiting import wait_for
from with_fake_hub import pinned


@pytest.fixture
def server() -> Iterator[object]:
    """A Hub with the published files."""
    with running_hub() as running:
        running.files.update(published_files())
        yield running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_the_program_starts_with_it(server, tmp_path) -> None:
    port = free_port()
    words = ["--checkpoint", TINY.name, "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, RUNNER, "app", *words],
            cwd=Path(RUNNER).parents[1],
            env=process_environment(server, tmp_path / "home"),
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for(lambda: answers(url) or process.poll() is not None, seconds=240)
        assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
        client = Client(url, verbose=False, download_files=False)
        assert client.predict(api_name="/models")[0]["name"] == TINY.name
        assert client.predict(api_name="/classes") == ["class 0", "class 1", "class 2"]
        made = client.predict(["class 1"], 1, 3, api_name="/generate")
        assert "png" in str(made) or "webp" in str(made)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def models(server, tmp_path, monkeypatch):
    """A holder whose menu offers the published models, and a client that knows that Hub only."""
    talk_to(server, monkeypatch, tmp_path / "home")
    monkeypatch.setitem(KNOWN_WEIGHTS, TINY.name, pinned(TINY, facts(server)))
    holder = model_folders.holder(tmp_path / "models")
    first = replace(holder.entries[0], built_in=True)
    holder.entries = (first, *known_entries())
    holder.lookout = Lookout()
    monkeypatch.setattr(holder, "_fetch", hub.resolve_checkpoint)
    return holder


@pytest.fixture
def page_url(models) -> Iterator[str]:
    """Address of a page with that menu."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo.launch import launch_options, queue_options
    from demo.ui import build_demo

    demo = build_demo(models)
    demo.queue(**queue_options())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url.rstrip("/")
    demo.close()


@pytest.mark.browser
def test_the_menu_ends_in_a_picture(page, page_url, models) -> None:  # noqa: F811
    page.locator("#model-menu > button").click()
    menu = page.locator("#model-choice")
    menu.locator(f'[data-name="{TINY.name}"]').get_by_text("a picture here").wait_for()
    shoot(page, "model-menu-published")
    menu.locator(f'input[value="{TINY.name}"]').check()
    page.locator("#model-go").click()
    page.wait_for_function("(name) => window.maskgitModel?.name === name", arg=TINY.name)
    page.locator("#model-status").get_by_text(f"{TINY.title} is in use.").wait_for()
    page.locator("#gen-go").click()
    page.locator("#gen-player figcaption").get_by_text("class 1").first.wait_for()
    wait_done(page, "#gen-player")
    shoot(page, "model-published")
