"""The page in a real Chromium: what a visitor does, and what must then be there."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from PIL import Image, ImageSequence

from browser_page import canvas_pixels, download, player_state, shoot, wait_done
from demo.runs.example import EXAMPLE_SEED
from maskgit_core.data.image_files import recipe_of
from page_client import OWN_SETTINGS, events

pytestmark = pytest.mark.browser

GENERATE = "#gen-player"


def generate(page) -> None:
    page.locator("#gen-go").click()
    page.wait_for_function(
        f"document.querySelector('{GENERATE} .mg-where').textContent.startsWith('Step ')"
    )


def test_first_result_is_there_before_any_click(page):
    state = player_state(page, GENERATE)
    assert state["done"] == "yes"
    assert page.locator(f"{GENERATE} .mg-stage canvas").count() == 4
    shoot(page, "generate-light")


def test_generate_shows_different_frames_before_the_last(page):
    page.evaluate(
        f"""() => {{
            window.seen = new Map();
            const look = () => {{
                const where = document.querySelector('{GENERATE} .mg-where').textContent;
                const canvas = document.querySelector('{GENERATE} canvas');
                if (canvas && where.startsWith('Step')) window.seen.set(where, canvas.toDataURL());
                window.watcher = requestAnimationFrame(look);
            }};
            look();
        }}"""
    )
    generate(page)
    page.wait_for_function(f"!document.querySelector('{GENERATE} [data-done=yes]')")
    wait_done(page, GENERATE)
    seen = page.evaluate("[...window.seen]")
    before_last = {pixels for where, pixels in seen if not where.startswith("Step 12 ")}
    assert len(before_last) >= 3
    assert player_state(page, GENERATE)["frames"] == "12"


def test_a_visitor_sees_the_place_in_line_and_gives_it_up_with_stop(page, page_url):
    other = events(page_url, "generate", [["sea"], 1, 5, 64, *OWN_SETTINGS])
    while not next(other)[1][0]["step"]:
        pass

    def waiting() -> int:
        return httpx.get(f"{page_url}/healthz", timeout=60).json()["waiting"]

    page.locator("#gen-go").click()
    page.wait_for_function(
        f"/^Place 1 in line$/.test(document.querySelector('{GENERATE} .mg-where').textContent)"
    )
    assert waiting() == 1
    page.locator("#gen-stop").click()
    page.wait_for_function(
        f"document.querySelector('{GENERATE} .mg-where').textContent === 'Start'"
    )
    until = time.monotonic() + 30
    while waiting():
        assert time.monotonic() < until
        time.sleep(0.05)
    other.close()
    generate(page)
    wait_done(page, GENERATE)


def test_scrubbing_and_views_ask_the_server_for_nothing(page):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    scrub = page.locator(f"{GENERATE} .mg-scrub")
    scrub.focus()
    pictures = set()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        page.wait_for_timeout(120)
        pictures.add(canvas_pixels(page, GENERATE))
    assert player_state(page, GENERATE)["at"] == "3"
    for view in ("Tokens", "Confidence", "Order"):
        page.locator(f"{GENERATE} .mg-views").get_by_label(view).check()
        page.wait_for_timeout(120)
        pictures.add(canvas_pixels(page, GENERATE))
        shoot(page, f"view-{view.lower()}")
    assert len(pictures) >= 6
    assert [url for url in asked if not url.startswith("data:")] == []


def test_space_plays_and_a_cell_tells_its_story(page):
    page.locator(f"{GENERATE} .mg-stage").focus()
    page.keyboard.press("End")
    page.keyboard.press(" ")
    page.wait_for_function(
        f"document.querySelector('{GENERATE} .mg-where').textContent.startsWith('Step 2 ')"
    )
    page.keyboard.press(" ")
    page.keyboard.press("End")
    canvas = page.locator(f"{GENERATE} .mg-stage canvas").first.bounding_box()
    page.mouse.move(canvas["x"] + canvas["width"] * 0.3, canvas["y"] + canvas["height"] * 0.3)
    story = page.locator(f"{GENERATE} .mg-cell")
    assert "row 4, column 4" in story.inner_text()
    assert "confidence" in story.inner_text()
    assert story.locator("li").count() == 5


def test_stop_ends_the_run_and_another_can_start(page):
    page.locator("#gen-preset").get_by_label("Best").check()  # long enough to be stopped in time
    generate(page)
    page.locator("#gen-stop").click()
    page.wait_for_timeout(1500)
    stopped = player_state(page, GENERATE)
    assert stopped["done"] == "no" and 0 < int(stopped["frames"]) < 32
    play = page.locator(f"{GENERATE} .mg-play")
    play.click()
    page.wait_for_function(
        f"document.querySelector('{GENERATE} .mg-play').getAttribute('aria-label') === 'Play'"
    )
    assert player_state(page, GENERATE)["at"] == stopped["frames"]
    page.locator("#gen-go").click()
    wait_done(page, GENERATE)


def test_files_to_keep(page):
    page.locator("#gen-keep button").first.click()
    page.wait_for_timeout(400)
    generate(page)
    wait_done(page, GENERATE)
    picture = download(page, "#gen-save-image")
    assert picture.suggested_filename.endswith(f"seed-{EXAMPLE_SEED}.png")
    assert Image.open(picture.path()).size == (2 * 96 + 4, 2 * 96 + 4)
    recipe = json.loads(download(page, "#gen-save-recipe").path().read_text())
    assert recipe_of(Image.open(picture.path())) == recipe
    assert recipe["seed"] == EXAMPLE_SEED and recipe["num_steps"] == 12
    strip = Image.open(download(page, "#gen-save-strip").path())
    assert strip.width == 13 * 100 - 4 and recipe_of(strip) == recipe
    movie = Image.open(download(page, "#gen-save-animation").path())
    assert recipe_of(movie) == recipe
    assert len(list(ImageSequence.Iterator(movie))) >= 12


def test_link_restores_settings_and_nonsense_is_harmless(page, page_url):
    page.locator("#gen-seed input").fill("123")
    page.locator("#gen-keep button").first.click()
    page.locator("#gen-copy").click()
    page.wait_for_function("document.querySelector('#gen-link textarea, #gen-link input').value")
    link = page.locator("#gen-link textarea, #gen-link input").first.input_value()
    page.goto(link)
    wait_done(page, GENERATE)
    page.wait_for_function("document.querySelector('#gen-seed input').value === '123'")
    page.goto(page_url + "/?class=<script>&seed=-4&images=99999&num_steps=abc&order=x&class=sea")
    wait_done(page, GENERATE)
    page.wait_for_function("document.querySelector('#gen-count input').value === '16'")
    assert page.locator("#gen-seed input").input_value() == str(EXAMPLE_SEED)


def test_bad_request_is_explained_and_nothing_is_lost(page):
    before = canvas_pixels(page, GENERATE)
    page.locator("#gen-seed input").fill("99999999999")
    page.locator("#gen-seed input").press("Tab")
    page.locator("#gen-go").click()
    page.get_by_text("Seed must be a whole number").wait_for()
    assert canvas_pixels(page, GENERATE) == before


def test_marked_cells_are_decided_again_and_others_stay(page):
    page.locator(f"{GENERATE} .mg-select").check()
    canvas = page.locator(f"{GENERATE} canvas[data-image]").first.bounding_box()
    page.mouse.move(canvas["x"] + 40, canvas["y"] + 60)
    page.mouse.down()
    page.mouse.move(canvas["x"] + 120, canvas["y"] + 60, steps=8)
    page.mouse.up()
    page.get_by_text("Touch the tokens").click()
    page.locator("#gen-redo").click()
    page.wait_for_function(
        f"document.querySelector('{GENERATE} .mg-scrub').max <= 7"
        f" && document.querySelector('{GENERATE} .mg-where').textContent.startsWith('Result')"
    )
    assert 1 <= int(player_state(page, GENERATE)["frames"]) <= 6
    page.mouse.move(canvas["x"] + 40, canvas["y"] + 10)
    assert "kept from before" in page.locator(f"{GENERATE} .mg-cell").inner_text()
    shoot(page, "redo")


def test_compare_shows_four_ways(page):
    page.get_by_role("tab", name="Compare").click()
    page.locator("#cmp-go").click()
    wait_done(page, "#cmp-player")
    captions = page.locator("#cmp-player figure figcaption").all_inner_texts()[:4]
    assert len(set(captions)) == 4 and all("steps" in caption for caption in captions)
    shoot(page, "compare")


def test_tour_shows_a_photo_and_its_tokens(page):
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_function(
        "document.querySelector('#tour [data-fill=cells]').textContent === '144'"
    )
    shoot(page, "tour")


def test_class_pictures_choose_classes(page):
    rose = page.locator("#gen-tiles button[data-name=rose]")
    rose.wait_for()
    for chosen in (False, True):
        rose.click()
        page.wait_for_function(
            "(want) => document.querySelector('#gen-tiles button[data-name=rose]')"
            ".getAttribute('aria-pressed') === want",
            arg=str(chosen).lower(),
        )
        assert ("rose" in page.locator("#gen-classes").inner_text()) is chosen


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_accessibility_findings(browser, page_url, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport={"width": 1280, "height": 950})
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.goto(f"{page_url}/?__theme={theme}")
    wait_done(tab, GENERATE)
    folds = {
        "Generate": ["Advanced", "Touch the tokens", "Keep it"],
        "Edit": ["Preset and seed"],
        "Compare": [],
        "How it works": [],
    }
    for name, inside in folds.items():
        tab.get_by_role("tab", name=name).click()
        for fold in inside:
            tab.get_by_text(fold, exact=True).locator("visible=true").first.click()
        tab.wait_for_timeout(700)
        found = axe.run(tab).response["violations"]
        bad = [
            (f["id"], f["nodes"][0]["html"])
            for f in found
            if f["impact"] in ("serious", "critical")
        ]
        assert bad == [], name
    shoot(tab, f"tour-{theme}")
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone_width_has_no_sideways_scroll(browser, page_url, theme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    tab = context.new_page()
    tab.goto(f"{page_url}/?__theme={theme}")
    wait_done(tab, GENERATE)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(tab, f"phone-{theme}")
    tab.get_by_role("tab", name="Edit").click()
    tab.wait_for_function("document.querySelector('#painter .pt-mask').clientWidth > 100")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(tab, f"phone-edit-{theme}")
    context.close()


def test_a_recipe_that_repeats_a_class_makes_the_same_images(page):
    recipe = {"task": "generate", "classes": ["rose", "rose", "sea"], "seed": 31}
    recipe |= {"count": 4, "num_steps": 2, "order": "raster"}
    page.locator("#gen-keep > button").click()
    with page.expect_file_chooser() as chooser:
        page.locator("#gen-open-recipe").click()
    text = json.dumps(recipe).encode()
    chooser.value.set_files([{"name": "r.json", "mimeType": "application/json", "buffer": text}])
    page.wait_for_function("document.querySelector('#gen-seed input').value === '31'")
    page.wait_for_timeout(500)
    page.locator("#gen-go").click()
    page.locator(f"{GENERATE} figcaption").get_by_text("seed 31").first.wait_for()
    wait_done(page, GENERATE)
    made = json.loads(download(page, "#gen-save-recipe").path().read_text())
    assert {key: made[key] for key in recipe} == recipe
