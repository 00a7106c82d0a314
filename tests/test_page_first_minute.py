"""A stranger's first minute, and what a reload brings back, in a real Chromium."""

from __future__ import annotations

import json
import threading
import time

import pytest

from browser_page import player_state, shoot, wait_done
from demo.runs.example import FirstResult
from maskgit_core.decoding.previews import LivePictures

pytestmark = pytest.mark.browser

GENERATE = "#gen-player"


def test_a_reload_brings_settings_back_that_were_never_run(page):
    page.locator("#gen-preset").get_by_label("Fast").check()
    page.locator("#gen-seed input").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("321")
    page.keyboard.press("Tab")
    page.wait_for_function("location.search.includes('seed=321')")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#cmp-what").get_by_label("Steps").check()
    page.get_by_role("tab", name="Edit").click()
    page.get_by_label("Extend beyond the edges").check()
    page.locator("#edit-sides").get_by_label("Up").check()
    page.wait_for_function("(sessionStorage['maskgit-settings'] || '').includes('\"up\"')")
    page.reload()
    wait_done(page, GENERATE)
    page.wait_for_function("document.querySelector('#gen-seed input').value === '321'")
    assert page.locator("#gen-preset input:checked").input_value() == "Fast"
    page.get_by_role("tab", name="Compare").click()
    page.locator("#cmp-what").get_by_label("Steps").wait_for()
    assert page.locator("#cmp-what input:checked").input_value() == "Steps"
    page.get_by_role("tab", name="Edit").click()
    page.locator("#edit-sides").wait_for()
    assert page.locator("#edit-sides").get_by_label("Up").is_checked()
    assert page.locator("#edit-sides").get_by_label("Right").is_checked()


def test_an_example_that_comes_late_takes_nothing_away(page, page_url, monkeypatch):
    released, made = threading.Event(), FirstResult.run

    def late(self, turn):
        assert released.wait(30)
        return made(self, turn)

    monkeypatch.setattr(FirstResult, "run", late)
    page.goto(f"{page_url}/?images=1&class=rose&seed=77&num_steps=3")
    page.wait_for_function("document.querySelector('#gen-seed input')?.value === '77'")
    page.locator("#gen-go").click()
    wait_done(page, GENERATE)
    released.set()
    page.wait_for_timeout(1500)
    captions = page.locator(f"{GENERATE} .mg-stage figcaption").all_inner_texts()
    assert captions == ["rose, seed 77"]
    page.reload()
    page.wait_for_function(f"document.querySelectorAll('{GENERATE} .mg-stage canvas').length === 4")


class LongLate(LivePictures):
    """Decodes nothing but the first and the last step, and takes seconds for the rest."""

    def __init__(self, model) -> None:
        super().__init__(model, share=1e-9)

    def fill(self, seconds: float):
        for some in super().fill(60):
            time.sleep(1.5)
            yield some


def test_the_next_run_need_not_wait_for_late_pictures(page, monkeypatch):
    monkeypatch.setattr("demo.serving.local.LivePictures", LongLate)
    go, caption = page.locator("#gen-go"), page.locator(f"{GENERATE} .mg-stage figcaption").first
    for seed in ("41", "42"):
        page.locator("#gen-seed input").fill(seed)
        page.locator("#gen-seed input").press("Tab")
        go.click()
        page.wait_for_function(
            "([id, end]) => document.querySelector(`${id} figcaption`).textContent.endsWith(end)"
            " && document.querySelector(`${id} [data-done=yes]`)",
            arg=[GENERATE, f"seed {seed}"],
            timeout=12_000,
        )
        assert page.locator("#gen-stop").is_enabled()
    page.locator("#gen-stop").click()
    page.wait_for_function("document.querySelector('#gen-stop').disabled")
    assert caption.inner_text().endswith("seed 42")


def test_a_recipe_can_be_dropped_on_the_page(page):
    recipe = {"task": "generate", "classes": ["sea"], "seed": 55, "count": 2, "num_steps": 3}
    page.evaluate(
        """(text) => {
            const data = new DataTransfer();
            data.items.add(new File([text], "mine.json", {type: "application/json"}));
            document.body.dispatchEvent(
                new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        json.dumps(recipe),
    )
    page.wait_for_function("document.querySelector('#gen-seed input').value === '55'")


def test_a_phone_shows_every_tab_and_the_way_to_the_result(browser, page_url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.goto(page_url)
    # The first result plays by itself, so it may be on its way when it is looked at.
    tab.wait_for_function(f"document.querySelector('{GENERATE} [data-done=yes]')")
    tab.wait_for_function(
        f"document.querySelector('{GENERATE} .mg-where').textContent.startsWith('Step ')"
    )
    for name in ("Generate", "Edit", "Compare", "How it works"):
        assert tab.get_by_role("tab", name=name).is_visible()
    go = tab.locator("#gen-go").bounding_box()
    assert go["y"] + go["height"] <= 844
    tab.locator("#gen-go").tap()
    tab.wait_for_function(f"document.querySelector('{GENERATE}').getBoundingClientRect().top < 400")
    wait_done(tab, GENERATE)
    shoot(tab, "phone-result")
    context.close()


def test_each_step_is_told_in_words(page):
    page.locator(f"{GENERATE} .mg-scrub").focus()
    page.keyboard.press("Home")
    story = page.locator(f"{GENERATE} .mg-story")
    assert story.inner_text() == "Before the first step 576 cells are masked."
    page.keyboard.press("ArrowRight")
    assert "guesses, of which the model was" in story.inner_text()
    assert "are still masked" in story.inner_text()


def test_the_tour_fills_its_own_example(page):
    page.get_by_role("tab", name="How it works").click()
    wait_done(page, "#tour-player")
    assert player_state(page, "#tour-player")["frames"] == "8"
