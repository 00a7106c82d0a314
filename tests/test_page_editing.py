"""The frame over large and wide photos, and what follows the mask, in a real Chromium."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from browser_page import shoot, wait_done

pytestmark = pytest.mark.browser

EDIT = "#edit-player"
WIDE = (900, 400)


def wide_photo() -> bytes:
    across = np.linspace(0, 255, WIDE[0])[None, :, None].repeat(WIDE[1], 0)
    down = np.linspace(0, 255, WIDE[1])[:, None, None].repeat(WIDE[0], 1)
    values = np.concatenate([across, down, 255 - across], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def open_wide(page) -> None:
    page.get_by_role("tab", name="Edit").click()
    with page.expect_file_chooser() as chooser:
        page.locator("#edit-open").click()
    chooser.value.set_files([{"name": "wide.png", "mimeType": "image/png", "buffer": wide_photo()}])
    page.wait_for_function(
        "(() => { const c = document.querySelector('#painter .pt-mask');"
        " return c.clientWidth > 2 * c.clientHeight; })()"
    )


def drag(page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the photo, from and to shares of its sides."""
    box = page.locator("#painter .pt-mask").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=6)
    page.mouse.up()


def wait_caption(page, words: str) -> None:
    page.wait_for_function(
        "([where, words]) => document.querySelector(where)?.textContent.includes(words)",
        arg=[f"{EDIT} .mg-stage figcaption", words],
    )


def masked_caption(page) -> str:
    return page.locator(f"{EDIT} .mg-stage figcaption").inner_text()


def test_a_frame_moves_over_a_wide_photo_and_the_rest_stays(page):
    open_wide(page)
    drag(page, (0.1, 0.5), (0.15, 0.5))
    drag(page, (0.85, 0.5), (0.9, 0.5))
    wait_caption(page, "cells will be")
    page.get_by_role("button", name="Frame", exact=True).click()
    shoot(page, "edit-frame-automatic")
    # The paint spans the photo, so the automatic frame does too; moved, it is a square.
    drag(page, (0.5, 0.5), (0.05, 0.5))
    share = page.locator("#painter .pt-share")
    assert "outside the frame" in share.inner_text()
    page.get_by_role("button", name="Automatic frame").wait_for()
    wait_caption(page, "cells will be")
    shoot(page, "edit-frame-moved")
    page.locator("#edit-go").click()
    wait_done(page, EDIT)
    page.locator("#edit-slider img").first.wait_for()
    with page.expect_download() as waiting:
        page.locator("#edit-download").click()
    result = np.asarray(Image.open(waiting.value.path()).convert("RGB"))
    before = np.asarray(Image.open(io.BytesIO(wide_photo())))
    changed = (result != before).any(-1)
    assert result.shape == before.shape
    assert changed[:, : WIDE[0] // 3].any()
    assert not changed[:, WIDE[1] :].any()


def test_a_frame_is_resized_by_corner_and_by_keys_and_given_up(page):
    open_wide(page)
    drag(page, (0.4, 0.5), (0.45, 0.55))
    wait_caption(page, "cells will be")
    few = masked_caption(page)
    page.get_by_role("button", name="Frame", exact=True).click()
    page.locator("#painter .pt-mask").focus()
    for _ in range(9):
        page.keyboard.press("-")
    page.wait_for_function(
        f"(few) => document.querySelector('{EDIT} .mg-stage figcaption').textContent !== few",
        arg=few,
    )
    # A smaller frame makes the same paint more of what the model sees.
    assert int(masked_caption(page).split()[0]) > int(few.split()[0])
    page.get_by_role("button", name="Automatic frame").click()
    page.wait_for_function(
        f"(few) => document.querySelector('{EDIT} .mg-stage figcaption').textContent === few",
        arg=few,
    )
    assert page.get_by_role("button", name="Automatic frame").is_hidden()


def test_a_cleared_mask_takes_its_preview_along(page):
    open_wide(page)
    drag(page, (0.4, 0.5), (0.45, 0.55))
    wait_caption(page, "cells will be")
    page.locator("#painter .pt-clear").click()
    page.get_by_text("Paint over a part of the photo, then press Repaint.").wait_for()


def test_an_extension_is_shown_before_it_runs(page):
    page.get_by_role("tab", name="Edit").click()
    page.get_by_label("Extend beyond the edges").check()
    wait_caption(page, "cells will be")
    right = masked_caption(page)
    page.locator("#edit-sides").get_by_label("Left").check()
    page.wait_for_function(
        f"(old) => document.querySelector('{EDIT} .mg-stage figcaption').textContent !== old",
        arg=right,
    )
