"""Edits of a photo and the photos themselves: what changes, what stays, what is refused."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.runs import edit, photos
from demo.runs.edit_session import EXTEND, REPAINT, EditSession
from demo.runs.photos import PhotoStore
from demo.runs.render import data_url
from demo.settings import RequestError, build_config
from odd_images import noise


def photo(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    return noise(1, mode, size)


def painted(size: tuple[int, int], box: tuple[int, int, int, int]) -> dict:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return {"key": "k", "mask": data_url(mask.convert("RGB"), lossless=True)}


@pytest.fixture
def session(tiny_model, tmp_path: Path) -> EditSession:
    return EditSession(tiny_model, PhotoStore(tmp_path / "store"))


def finish(session: EditSession, value, kept, **changes) -> list[Image.Image]:
    chosen = {
        "mode": REPAINT,
        "directions": ["right"],
        "amount": 50,
        "class_name": "No class",
        "count": 1,
        "seed": 0,
        "values": {"num_steps": 3},
        **changes,
    }
    request = session.request(value, kept, **chosen)
    *_, (run, images) = edit.edit_run(session.model, request)
    assert run["result"] and len(run["frames"]) == run["num_steps"]
    return images


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P"])
def test_kept_pixels_are_identical_whatever_the_photo(session, mode: str) -> None:
    source = photo((64, 48), mode)
    buffer = io.BytesIO()
    source.save(buffer, "TIFF")
    _, kept = session.open(buffer.getvalue())
    before = np.asarray(session.store.load(kept))
    (after,) = finish(session, painted((512, 384), (200, 100, 300, 200)), kept)
    pixels = np.asarray(after)
    assert pixels.shape == before.shape
    mask = photos.painted_mask(painted((512, 384), (200, 100, 300, 200)), source.size)
    assert (pixels[~mask] == before[~mask]).all()
    assert (pixels[mask] != before[mask]).any()


def test_result_equals_the_pipeline(session) -> None:
    _, kept = session.open(photo())
    value = painted((512, 384), (100, 100, 300, 250))
    (after,) = finish(session, value, kept, class_name="sea", seed=9)
    mask = photos.painted_mask(value, (40, 30))
    expected = session.model.inpaint(
        photo(), mask, label="sea", config=build_config({"num_steps": 3}), seed=9
    ).image
    assert np.asarray(after).tolist() == np.asarray(expected).tolist()


def test_variations_use_the_next_seeds(session) -> None:
    _, kept = session.open(photo())
    value = painted((512, 384), (100, 100, 400, 300))
    together = finish(session, value, kept, count=3, seed=4)
    alone = finish(session, value, kept, seed=6)
    assert np.asarray(together[2]).tolist() == np.asarray(alone[0]).tolist()


def test_starting_from_the_photo_is_off_until_asked_for(session) -> None:
    value = painted((512, 512), (128, 128, 384, 384))
    clean = photo((64, 64))
    other = clean.copy()
    other.paste((250, 0, 0), (20, 20, 44, 44))  # well inside the painted part
    grids = {}
    for percent in (0, 90):
        for name, source in (("clean", clean), ("other", other)):
            _, kept = session.open(source)
            request = session.request(
                value, kept, REPAINT, [], 50, "sea", 1, 0, {"num_steps": 3}, percent
            )
            grids[percent, name] = edit.start_tokens(session.model, request)
    masked = {key: grid == session.model.mask_token_id for key, grid in grids.items()}
    assert grids[0, "clean"].equal(grids[0, "other"])
    assert not grids[90, "clean"].equal(grids[90, "other"])
    assert 1 <= masked[90, "clean"].sum() < masked[0, "clean"].sum()
    for percent in (-1, 95, "x"):
        with pytest.raises(RequestError, match="Start from the photo"):
            session.request(value, kept, REPAINT, [], 50, "sea", 1, 0, {}, percent)


def test_extending(session) -> None:
    _, kept = session.open(photo())
    (after,) = finish(session, None, kept, mode=EXTEND, directions=["left", "down"], amount=50)
    assert after.size == (60, 45)
    assert np.asarray(after)[:30, 20:].tolist() == np.asarray(photo()).tolist()


def test_one_pixel_and_everything_painted(session) -> None:
    _, kept = session.open(photo((1, 1)))
    assert finish(session, painted((512, 512), (0, 0, 512, 512)), kept)[0].size == (1, 1)
    _, kept = session.open(photo())
    assert finish(session, painted((512, 384), (0, 0, 512, 384)), kept)[0].size == (40, 30)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"class_name": "moon"}, "moon"),
        ({"count": 0}, "Variations"),
        ({"count": 99}, "Variations"),
        ({"seed": None}, "Seed"),
        ({"mode": EXTEND, "directions": []}, "at least one side"),
        ({"mode": EXTEND, "directions": ["north"]}, "at least one side"),
        ({"mode": EXTEND, "amount": 1e9}, "Extend by"),
        ({"values": {"num_steps": 0}}, "Steps"),
    ],
)
def test_bad_edits(session, changes, word: str) -> None:
    _, kept = session.open(photo())
    with pytest.raises(RequestError, match=word):
        finish(session, painted((512, 384), (0, 0, 50, 50)), kept, **changes)


def test_no_photo_no_mask_and_broken_masks(session) -> None:
    with pytest.raises(RequestError, match="Open a photo first"):
        finish(session, painted((9, 9), (0, 0, 5, 5)), None)
    _, kept = session.open(photo())
    for value in (None, {}, {"mask": None}, painted((512, 384), (0, 0, 0, 0))):
        with pytest.raises(RequestError, match="Paint over the part"):
            finish(session, value, kept)
    for text in ("data:image/png;base64,AAAA", "x" * 3_000_000, 7):
        with pytest.raises(RequestError):
            finish(session, {"mask": text}, kept)


def test_preview_marks_the_cells_that_will_be_decided(session) -> None:
    _, kept = session.open(photo((32, 32)))
    run, frame = session.preview(painted((512, 512), (0, 0, 60, 60)), kept)
    unknown = np.array(run["known"]).reshape(4, 4) == run["mask_id"]
    assert unknown[:2, :2].all() and not unknown[3].any()
    assert frame == [0, 0, 1, 1]
    assert session.preview({"mask": None}, kept) is None


# ---- files ---------------------------------------------------------------------------------------


def test_files_that_are_no_photos(session) -> None:
    png = io.BytesIO()
    photo((64, 64)).save(png, "PNG")
    for content in (
        b"",
        b"hello",
        png.getvalue()[:80],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ):
        with pytest.raises(RequestError, match="^The file "):
            session.open(content)


def test_fifty_megapixels_are_refused(session) -> None:
    buffer = io.BytesIO()
    Image.new("1", (10_000, 5_000)).save(buffer, "PNG")
    with pytest.raises(RequestError, match="too large"):
        session.open(buffer.getvalue())


def test_a_path_from_the_page_must_be_an_upload() -> None:
    for path in ("/etc/passwd", "", None, "../app.py", __file__, "\0", "x" * 9000, 7, ["a"]):
        with pytest.raises(RequestError, match="Upload it again"):
            photos.take_upload(path)
    assert Path(__file__).exists()


def test_small_paint_on_a_small_photo_is_not_lost() -> None:
    mask = photos.painted_mask(painted((512, 512), (250, 250, 254, 254)), (4, 4))
    assert mask is not None and mask.any()


def test_old_files_are_removed(tmp_path: Path) -> None:
    store = PhotoStore(tmp_path)
    old = Path(store.save(photo()))
    long_ago = time.time() - photos.KEEP_SECONDS - 60
    os.utime(old.parent, (long_ago, long_ago))
    new = store.save(photo())
    assert not old.exists() and Path(new).exists()
    with pytest.raises(RequestError, match="no longer kept"):
        store.load(str(old))
