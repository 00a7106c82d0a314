"""Fixtures: the page served in this process, and a real Chromium that watches for trouble."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import pytest

from browser_model import tiny_model

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ARTIFACTS = Path(os.environ.get("ARTIFACTS", "artifacts")) / "screenshots"


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    """Address of the page on a small random model whose steps take a moment."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo.launch import launch_options, queue_options
    from demo.serving.health import health_routes
    from demo.serving.models import ModelHolder
    from demo.serving.runner import make_runner
    from demo.ui import build_demo

    models = ModelHolder(tiny_model(pause=0.08, grid_size=12, codebook_size=64))
    runner = make_runner(models)
    demo = build_demo(models, runner=runner)
    demo.queue(**queue_options())
    options = launch_options(routes=health_routes(models, runner))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **options)
    yield url.rstrip("/")
    demo.close()


CUT_BY_THE_PAGE = ("ERR_ABORTED", "ERR_INCOMPLETE")  # the stream of a finished run
CUT_BY_A_RELOAD = ("AbortError", "Connection errored out", "Failed to fetch", "network error")


@dataclass
class Trouble:
    """What a page should never do: report errors, or ask another machine."""

    seen: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    loads: int = 0

    @property
    def errors(self) -> list[str]:
        """What the page reported, without what is usual."""
        usual = CUT_BY_THE_PAGE + (CUT_BY_A_RELOAD if self.loads > 1 else ())
        return [text for text in self.seen if not any(cut in text for cut in usual)]

    def watch(self, page) -> None:
        """Listen to a Playwright page."""
        page.on("domcontentloaded", self._loaded)
        page.on("pageerror", lambda error: self.seen.append(str(error)))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message) -> None:
        if message.type == "error":
            self.seen.append(message.text)

    def _loaded(self, page) -> None:
        self.loads += 1

    def _request(self, request) -> None:
        address = urlparse(request.url)
        if address.scheme in ("http", "https") and address.hostname != "127.0.0.1":
            self.requests.append(request.url)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium for the whole module."""
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, page_url):
    """A page with the example result on it; fails the test if it caused trouble."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 950}, accept_downloads=True, reduced_motion="reduce"
    )
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    trouble = Trouble()
    trouble.watch(tab)
    tab.goto(page_url + "/?__theme=light")
    wait_done(tab, "#gen-player")
    yield tab
    context.close()
    assert not trouble.errors, f"the page reported {trouble.errors}"
    assert trouble.requests == []


def wait_done(page, player: str) -> None:
    """Wait until a player holds a finished run."""
    page.wait_for_function(
        "(selector) => document.querySelector(`${selector} [data-done=yes]`)"
        " || document.querySelector(`${selector}[data-done=yes]`)",
        arg=player,
    )


def player_state(page, player: str) -> dict:
    """What a player shows: its step (`at`), how many frames it holds, whether it is done."""
    return page.evaluate(
        """(selector) => {
            const outer = document.querySelector(selector);
            const node = outer.matches('[data-frames]') ? outer
                : outer.querySelector('[data-frames]');
            return {...node.dataset};
        }""",
        player,
    )


def canvas_pixels(page, player: str, image: int = 0) -> str:
    """The pixels of one canvas of a player, as a data URL, to compare."""
    return page.evaluate(
        "([selector, i]) => document.querySelectorAll(`${selector} canvas`)[i].toDataURL()",
        [player, image],
    )


def download(page, selector: str):
    """Press a button that saves a file; the Playwright download."""
    with page.expect_download() as waiting:
        page.locator(selector).click()
    return waiting.value


def shoot(page, name: str) -> None:
    """Save a screenshot among the build's artefacts."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(ARTIFACTS / f"{name}.png"), full_page=True)
