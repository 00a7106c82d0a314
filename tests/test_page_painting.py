"""Painting, filling and extending a photo in a real Chromium."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from browser_page import download, shoot, wait_done

pytestmark = pytest.mark.browser

EDIT = "#edit-player"


def open_edit(page) -> None:
    page.get_by_role("tab", name="Edit").click()
    page.wait_for_function("document.querySelector('#painter .pt-mask').clientWidth > 100")


def paint(page) -> None:
    canvas = page.locator("#painter .pt-mask").bounding_box()
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(x - 40, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 10, steps=8)
    page.mouse.up()


def wait_preview(page) -> None:
    page.wait_for_function(
        f"document.querySelector('{EDIT} figcaption')?.textContent.includes('cells will be')"
    )


def test_edit_paints_fills_and_keeps_the_rest_identical(page):
    from demo.runs.edit_session import example_photos

    open_edit(page)
    paint(page)
    wait_preview(page)
    shoot(page, "edit-mask")
    page.locator("#edit-go").click()
    wait_done(page, EDIT)
    page.locator("#edit-slider img").first.wait_for()
    shoot(page, "edit-done")
    result = np.asarray(Image.open(download(page, "#edit-download").path()).convert("RGB"))
    photo = np.asarray(Image.open(example_photos()[0]).convert("RGB"))
    assert result.shape == photo.shape
    changed = (result != photo).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert 0.005 < changed.mean() < 0.3
    # Painted in the middle: the border of the photo is far from the brush.
    assert rows.min() > 20 and rows.max() < 80 and columns.min() > 15 and columns.max() < 85


def test_edit_without_a_mask_says_what_to_do(page):
    open_edit(page)
    page.locator("#edit-go").click()
    page.get_by_text("Paint over the part that should change first").wait_for()


def test_mask_tools(page):
    open_edit(page)
    share = page.locator("#painter .pt-share")
    assert share.inner_text() == ""
    paint(page)
    few = share.inner_text()
    assert few.endswith("% marked")
    page.locator("#painter .pt-invert").click()
    assert int(share.inner_text().split()[0]) == 100 - int(few.split()[0])
    page.locator("#painter .pt-all").click()
    assert share.inner_text() == "100 % marked"
    page.locator("#painter .pt-clear").click()
    assert share.inner_text() == ""
    for _ in range(3):
        page.locator("#painter .pt-undo").click()
    assert share.inner_text() == few
    page.locator("#painter .pt-redo").click()
    assert share.inner_text() != few
    page.get_by_role("tab", name="Generate").click()
    before = share.text_content()
    page.get_by_role("tab", name="Edit").click()
    assert share.inner_text() == before


def test_a_pinch_paints_nothing_and_the_browsers_keys_stay_its_own(browser, page_url):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    tab = context.new_page()
    tab.goto(page_url)
    open_edit(tab)
    tab.locator("#painter .pt-mask").scroll_into_view_if_needed()
    box = tab.locator("#painter .pt-mask").bounding_box()
    touch = context.new_cdp_session(tab)

    def fingers(kind: str, *apart: float) -> None:
        points = [
            {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * x, "id": i}
            for i, x in enumerate(apart)
        ]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    share = tab.locator("#painter .pt-share")
    fingers("touchStart", 0.4)
    fingers("touchMove", 0.41)
    fingers("touchStart", 0.41, 0.6)
    for k in range(6):
        fingers("touchMove", 0.4 - 0.04 * k, 0.6 + 0.04 * k)
    fingers("touchEnd")
    tab.wait_for_timeout(500)
    assert share.inner_text() == ""
    fingers("touchStart", 0.4)
    fingers("touchMove", 0.5)
    fingers("touchEnd")
    tab.wait_for_function("document.querySelector('#painter .pt-share').textContent !== ''")
    prevented = """([key, ctrlKey]) => {
        const event = new KeyboardEvent("keydown", {key, ctrlKey, bubbles: true, cancelable: true});
        document.querySelector("#painter .pt-mask").dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    assert [tab.evaluate(prevented, [key, held]) for key in "-z" for held in (False, True)] == [
        True,
        False,
        True,
        True,
    ]
    context.close()


def test_variations_and_use_as_input(page):
    open_edit(page)
    page.locator("#edit-count input[type=number]").fill("2")
    page.locator("#edit-count input[type=number]").press("Tab")
    paint(page)
    page.locator("#edit-go").click()
    wait_done(page, EDIT)
    assert page.locator(f"{EDIT} canvas[data-image]").count() == 2
    page.locator("#edit-choice").get_by_label("2").check()
    page.wait_for_timeout(800)
    assert download(page, "#edit-download").suggested_filename == "edit-seed-2.png"
    page.locator("#edit-reuse").click()
    page.wait_for_function("document.querySelector('#painter .pt-share').textContent === ''")
    page.locator("#edit-back").click()
    page.wait_for_function("document.querySelector('#edit-back').disabled")


def test_extend_makes_a_larger_photo(page):
    open_edit(page)
    page.get_by_label("Extend beyond the edges").check()
    page.locator("#edit-sides").wait_for()
    page.locator("#edit-go").click()
    wait_done(page, EDIT)
    page.locator("#edit-slider img").first.wait_for()
    page.wait_for_timeout(300)
    assert Image.open(download(page, "#edit-download").path()).size == (150, 100)


def test_a_file_that_is_no_image_is_refused_in_words(page):
    open_edit(page)
    with page.expect_file_chooser() as chooser:
        page.locator("#edit-open").click()
    broken = io.BytesIO()
    Image.new("RGB", (64, 64)).save(broken, "PNG")
    chooser.value.set_files(
        [{"name": "cut.png", "mimeType": "image/png", "buffer": broken.getvalue()[:60]}]
    )
    page.get_by_text("This photo cannot be opened").wait_for()


def test_a_pasted_photo_opens(page):
    open_edit(page)
    page.evaluate(
        """async () => {
            const canvas = document.createElement("canvas");
            canvas.width = 90; canvas.height = 30;
            const blob = await new Promise((done) => canvas.toBlob(done));
            const data = new DataTransfer();
            data.items.add(new File([blob], "pasted.png", {type: "image/png"}));
            document.body.dispatchEvent(
                new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }"""
    )
    page.wait_for_function(
        "(() => { const c = document.querySelector('#painter .pt-mask');"
        " return c.clientWidth > 2.5 * c.clientHeight; })()"
    )
