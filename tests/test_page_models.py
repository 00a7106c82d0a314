"""The model menu in a real Chromium."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

import model_folders
from browser_page import player_state, shoot, wait_done
from demo.serving.catalogue import Lookout, ModelEntry
from maskgit_core.weights.known import KNOWN_WEIGHTS

pytestmark = pytest.mark.browser

GENERATE = "#gen-player"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The holder behind the page."""
    return model_folders.holder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def page_url(models) -> Iterator[str]:
    """Address of a page whose menu holds two tiny models and two that cannot be used."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo.launch import launch_options, queue_options
    from demo.ui import build_demo

    demo = build_demo(models)
    demo.queue(**queue_options())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url.rstrip("/")
    demo.close()


@pytest.fixture(autouse=True)
def first_model_again(models):
    """Each test begins and ends on the first model."""
    yield
    models.use(model_folders.FIRST, models.fetch(model_folders.FIRST))


def settled(page) -> None:
    """Wait for the last thing that an opening page asks for: leaving earlier would cut it off."""
    page.locator("#gen-tiles button").first.wait_for()


def open_menu(page):
    """Open the menu where it is closed, and wait until it has looked around."""
    entries = page.locator("#model-choice .mm-list")
    if not entries.is_visible():
        page.locator("#model-menu > button").click()
        entries.wait_for()
    return page.locator("#model-choice")


def choose(page, name: str) -> None:
    """Pick a model in the menu and ask for it."""
    open_menu(page).locator(f'input[value="{name}"]').check()
    page.locator("#model-go").click()


def wait_model(page, name: str) -> None:
    page.wait_for_function("(name) => window.maskgitModel?.name === name", arg=name)
    page.locator("#model-status").get_by_text(f"{name} is in use.").wait_for()


def open_advanced(page) -> None:
    page.locator("#gen-advanced > button").click()
    page.locator("#gen-num_steps input[type=number]").wait_for()


def test_another_model_brings_its_classes_and_settings_and_back(page):
    open_advanced(page)
    assert page.locator("#gen-guidance_scale").is_visible()
    choose(page, model_folders.SECOND)
    wait_model(page, model_folders.SECOND)
    page.locator("#gen-guidance_scale").wait_for(state="hidden")
    assert page.locator("#gen-guidance_schedule").is_hidden()
    assert page.locator("#gen-num_steps input[type=number]").input_value() == "4"
    assert page.locator("#gen-preset input:checked").input_value() == "Recommended"
    # The one class that both know stays chosen.
    assert "sea" in page.locator("#gen-classes").inner_text()
    page.locator("#gen-classes input").fill("shark")
    page.get_by_role("option", name="tiger shark").click()
    shoot(page, "model-menu")
    page.locator("#gen-go").click()
    page.locator(f"{GENERATE} figcaption").get_by_text("tiger shark").first.wait_for()
    wait_done(page, GENERATE)
    assert player_state(page, GENERATE)["frames"] == "4"
    assert "model=animals" in page.url
    choose(page, model_folders.FIRST)
    wait_model(page, model_folders.FIRST)
    page.locator("#gen-guidance_scale").wait_for(state="visible")
    assert page.locator("#gen-num_steps input[type=number]").input_value() == "12"
    page.locator("#gen-go").click()
    page.wait_for_function(f"document.querySelector('{GENERATE} [data-frames=\"12\"]')")
    wait_done(page, GENERATE)


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing", "it is no longer where it was"), ("damaged", "damaged cannot be")],
)
def test_a_model_that_cannot_be_used_leaves_all_as_it_was(page, name, words):
    page.locator("#gen-seed input").fill("123")
    choose(page, name)
    said = page.locator("#model-status").get_by_text(words)
    said.wait_for()
    assert "garden stays in use." in said.inner_text()
    assert page.locator("#gen-seed input").input_value() == "123"
    page.locator("#gen-go").click()
    page.locator(f"{GENERATE} figcaption").get_by_text("seed 123").first.wait_for()
    wait_done(page, GENERATE)


def test_a_recipe_offers_its_model_and_then_fills_the_settings(page):
    recipe = {"task": "generate", "model": "animals", "classes": ["zebra"], "seed": 55, "count": 2}
    recipe |= {"num_steps": 3, "order": "raster"}
    page.locator("#gen-keep > button").click()
    with page.expect_file_chooser() as chooser:
        page.locator("#gen-open-recipe").click()
    text = json.dumps(recipe).encode()
    chooser.value.set_files([{"name": "r.json", "mimeType": "application/json", "buffer": text}])
    page.locator("#model-status").get_by_text("made with animals").wait_for()
    page.locator("#model-go").click()
    wait_model(page, model_folders.SECOND)
    page.wait_for_function("document.querySelector('#gen-seed input').value === '55'")
    assert "zebra" in page.locator("#gen-classes").inner_text()


def test_a_link_offers_its_model(page, page_url):
    settled(page)
    page.goto(f"{page_url}/?model=animals&class=cat&seed=77&images=1")
    page.locator("#model-status").get_by_text("made with animals").wait_for()
    page.locator("#model-go").click()
    wait_model(page, model_folders.SECOND)
    page.wait_for_function(
        "document.querySelector('#gen-classes').textContent.includes('cat')"
        " || [...document.querySelectorAll('#gen-classes input')].some((i) => i.value === 'cat')"
    )
    assert page.locator("#gen-seed input").input_value() == "77"


def test_a_page_whose_model_was_changed_elsewhere_says_so(page, models):
    models.use(model_folders.SECOND, models.fetch(model_folders.SECOND))
    page.locator("#gen-go").click()
    page.get_by_text("The model was changed to animals on another page").wait_for()
    choose(page, model_folders.SECOND)
    wait_model(page, model_folders.SECOND)
    page.locator("#gen-go").click()
    page.locator(f"{GENERATE} figcaption").get_by_text("zebra").or_(
        page.locator(f"{GENERATE} figcaption").get_by_text("sea")
    ).first.wait_for()


def test_a_new_page_is_laid_out_for_the_model_in_use(page, page_url, models):
    models.use(model_folders.SECOND, models.fetch(model_folders.SECOND))
    settled(page)
    page.goto(page_url)
    page.wait_for_function("window.maskgitModel?.name === 'animals'")
    page.get_by_text("Model: animals").wait_for()
    wait_done(page, GENERATE)
    assert player_state(page, GENERATE)["frames"] == "4"


def test_a_download_shows_its_share_and_is_cancelled(page):
    choose(page, "slow")
    page.locator("#model-status").get_by_text("Fetching slow: 25 MB of 100 MB.").wait_for()
    bar = page.locator("#model-status [role=progressbar]")
    assert bar.get_attribute("aria-valuenow") == "25"
    shoot(page, "model-download")
    page.locator("#model-cancel").click()
    said = page.locator("#model-status").get_by_text("The download was cancelled.")
    said.wait_for()
    assert "garden stays in use." in said.inner_text()
    page.locator("#model-cancel").wait_for(state="hidden")
    choose(page, model_folders.SECOND)
    wait_model(page, model_folders.SECOND)


def test_what_cannot_work_here_is_grey_and_says_why(page, page_url, models, monkeypatch):
    known = [
        ModelEntry(name, name, KNOWN_WEIGHTS[name]) for name in ("imagenet-256-tiny", "google-256")
    ]
    first = replace(models.entries[0], built_in=True)
    monkeypatch.setattr(models, "entries", (first, *known))
    monkeypatch.setattr(models, "lookout", Lookout(reach=lambda: False))
    settled(page)
    page.goto(page_url)
    menu = open_menu(page)
    menu.get_by_text("No internet here, so only the built-in model works.").wait_for()
    for name in ("imagenet-256-tiny", "google-256"):
        assert menu.locator(f'input[value="{name}"]').is_disabled()
    tiny = menu.locator('[data-name="imagenet-256-tiny"]')
    tiny.get_by_text("a picture here").wait_for()
    assert tiny.inner_text().startswith("ImageNet 256, tiny")
    assert "No internet here. The quickest" in tiny.inner_text()
    mine = menu.locator(f'input[value="{model_folders.FIRST}"]')
    assert mine.is_checked() and mine.is_enabled()
    shoot(page, "model-offline")
    monkeypatch.setattr(models, "lookout", Lookout(reach=lambda: True))
    page.locator("#model-menu > button").click()
    page.locator("#model-menu > button").click()
    page.wait_for_function("!document.querySelector('#model-choice input[disabled]')")
    shoot(page, "model-online")
