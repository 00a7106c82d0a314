"""Edits of a photo and the photos themselves: what changes, what stays, what is refused."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.runs import edit_session, photos
from demo.runs.edit_session import EXTEND, EditSession, Task
from demo.runs.follow import follow
from demo.runs.photos import PhotoStore
from demo.runs.render import data_url
from demo.serving.steps import decode_alone
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


def finish(session: EditSession, model, task: Task, **changes) -> tuple[Image.Image, ...]:
    settings = {"class_name": "No class", "count": 1, "seed": 0, "values": {"num_steps": 3}}
    request = session.request(model, task, **{**settings, **changes})
    *_, last = follow(request, decode_alone(model))
    assert last.run["result"] and len(last.run["frames"]) == last.run["num_steps"]
    return last.images


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P"])
def test_kept_pixels_are_identical_whatever_the_photo(session, tiny_model, mode: str) -> None:
    source = photo((64, 48), mode)
    buffer = io.BytesIO()
    source.save(buffer, "TIFF")
    _, kept = session.open(buffer.getvalue())
    before = np.asarray(session.store.load(kept))
    (after,) = finish(session, tiny_model, Task(kept, painted((512, 384), (200, 100, 300, 200))))
    pixels = np.asarray(after)
    assert pixels.shape == before.shape
    mask = photos.painted_mask(painted((512, 384), (200, 100, 300, 200)), source.size)
    assert (pixels[~mask] == before[~mask]).all()
    assert (pixels[mask] != before[mask]).any()


def test_result_equals_the_pipeline(session, tiny_model) -> None:
    _, kept = session.open(photo())
    value = painted((512, 384), (100, 100, 300, 250))
    (after,) = finish(session, tiny_model, Task(kept, value), class_name="sea", seed=9)
    mask = photos.painted_mask(value, (40, 30))
    expected = tiny_model.inpaint(
        photo(), mask, label="sea", config=build_config({"num_steps": 3}), seed=9
    ).image
    assert np.asarray(after).tolist() == np.asarray(expected).tolist()


def test_variations_use_the_next_seeds(session, tiny_model) -> None:
    _, kept = session.open(photo())
    value = painted((512, 384), (100, 100, 400, 300))
    together = finish(session, tiny_model, Task(kept, value), count=3, seed=4)
    alone = finish(session, tiny_model, Task(kept, value), seed=6)
    assert np.asarray(together[2]).tolist() == np.asarray(alone[0]).tolist()


def test_starting_from_the_photo_is_off_until_asked_for(session, tiny_model) -> None:
    value = painted((512, 512), (128, 128, 384, 384))
    clean = photo((64, 64))
    other = clean.copy()
    other.paste((250, 0, 0), (20, 20, 44, 44))  # well inside the painted part
    grids = {}
    for percent in (0, 90):
        for name, source in (("clean", clean), ("other", other)):
            _, kept = session.open(source)
            task, settings = Task(kept, value), ("sea", 1, 0, {"num_steps": 3}, percent)
            grids[percent, name] = session.request(tiny_model, task, *settings).tokens
    masked = {key: grid == tiny_model.mask_token_id for key, grid in grids.items()}
    assert grids[0, "clean"].equal(grids[0, "other"])
    assert not grids[90, "clean"].equal(grids[90, "other"])
    assert 1 <= masked[90, "clean"].sum() < masked[0, "clean"].sum()
    for percent in (-1, 95, "x"):
        with pytest.raises(RequestError, match="Start from the photo"):
            session.request(tiny_model, Task(kept, value), "sea", 1, 0, {}, percent)


def test_extending(session, tiny_model) -> None:
    _, kept = session.open(photo())
    (after,) = finish(session, tiny_model, Task(kept, None, EXTEND, ["left", "down"], 50))
    assert after.size == (60, 45)
    assert np.asarray(after)[:30, 20:].tolist() == np.asarray(photo()).tolist()


def test_one_pixel_and_everything_painted(session, tiny_model) -> None:
    _, kept = session.open(photo((1, 1)))
    assert finish(session, tiny_model, Task(kept, painted((512, 512), (0, 0, 512, 512))))[
        0
    ].size == (1, 1)
    _, kept = session.open(photo())
    assert finish(session, tiny_model, Task(kept, painted((512, 384), (0, 0, 512, 384))))[
        0
    ].size == (40, 30)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"class_name": "moon"}, "moon"),
        ({"count": 0}, "Variations"),
        ({"count": 99}, "Variations"),
        ({"seed": None}, "Seed"),
        ({"values": {"num_steps": 0}}, "Steps"),
    ],
)
def test_bad_settings_of_edits(session, tiny_model, changes, word: str) -> None:
    _, kept = session.open(photo())
    with pytest.raises(RequestError, match=word):
        finish(session, tiny_model, Task(kept, painted((512, 384), (0, 0, 50, 50))), **changes)


@pytest.mark.parametrize(
    ("directions", "amount", "word"),
    [
        ([], 50, "at least one side"),
        (["north"], 50, "at least one side"),
        ("right", 50, "at least one side"),
        (["right"], 1e9, "Extend by"),
    ],
)
def test_bad_extensions(session, tiny_model, directions, amount, word: str) -> None:
    _, kept = session.open(photo())
    with pytest.raises(RequestError, match=word):
        finish(session, tiny_model, Task(kept, None, EXTEND, directions, amount))


def test_no_photo_no_mask_and_broken_masks(session, tiny_model) -> None:
    with pytest.raises(RequestError, match="Open a photo first"):
        finish(session, tiny_model, Task(None, painted((9, 9), (0, 0, 5, 5))))
    _, kept = session.open(photo())
    for value in (None, {}, {"mask": None}, painted((512, 384), (0, 0, 0, 0))):
        with pytest.raises(RequestError, match="Paint over the part"):
            finish(session, tiny_model, Task(kept, value))
    for text in ("data:image/png;base64,AAAA", "x" * 3_000_000, 7):
        with pytest.raises(RequestError):
            finish(session, tiny_model, Task(kept, {"mask": text}))


def test_preview_marks_the_cells_that_will_be_decided(session, tiny_model) -> None:
    _, kept = session.open(photo((32, 32)))
    run, frame = session.preview(Task(kept, painted((512, 512), (0, 0, 60, 60))))
    unknown = np.array(run["known"]).reshape(4, 4) == run["mask_id"]
    assert unknown[:2, :2].all() and not unknown[3].any()
    assert frame == [0, 0, 1, 1]
    assert session.preview(Task(kept, {"mask": None})) is None


@pytest.fixture
def counted(session, tiny_model, monkeypatch) -> Counter[str]:
    """How often plans are made, photos encoded, and photos read from the disk."""
    counts: Counter[str] = Counter()
    for owner, names in (
        (tiny_model, ("plan_inpaint", "plan_outpaint", "encode")),
        (session.store, ("load",)),
    ):
        for name in names:
            whole = getattr(owner, name)

            def noted(*args, name=name, whole=whole, **sides):
                counts[name] += 1
                return whole(*args, **sides)

            monkeypatch.setattr(owner, name, noted)
    return counts


def test_what_was_planned_for_the_preview_is_run(session, tiny_model, counted) -> None:
    _, kept = session.open(photo((64, 64)))
    box = painted((512, 512), (100, 100, 300, 300))
    for _ in range(3):
        session.preview(Task(kept, box))
    for seed in (1, 2):
        finish(session, tiny_model, Task(kept, box), seed=seed)
    assert counted == {"load": 1, "plan_inpaint": 1, "encode": 1}
    # Another stroke, another frame: planned again, on the photo that is there already.
    more = painted((512, 512), (100, 100, 400, 300))
    session.preview(Task(kept, more))
    finish(session, tiny_model, Task(kept, {**more, "frame": [0.1, 0.1, 0.9]}))
    assert counted == {"load": 1, "plan_inpaint": 3, "encode": 3}
    for _ in range(2):
        session.preview(Task(kept, more, EXTEND, ["left"], 50))
    finish(session, tiny_model, Task(kept, None, EXTEND, ["left"], 50))
    assert counted["plan_outpaint"] == 1 and counted["encode"] == 4


def test_only_the_last_plan_of_a_photo_and_few_photos_are_kept(
    session, tiny_model, monkeypatch
) -> None:
    monkeypatch.setattr(edit_session, "MAX_PLANNED_PIXELS", 3 * 64 * 64)
    boxes = [painted((512, 512), (100, 100, 300, 300 + i)) for i in range(3)]
    paths = [session.open(noise(i, size=(64, 64)))[1] for i in range(5)]
    for path in paths:
        for box in boxes:
            session.preview(Task(path, box))
    assert list(session._planned) == paths[-3:]
    _, large = session.open(noise(9, size=(256, 256)))
    session.preview(Task(large, boxes[0]))
    assert list(session._planned) == [large]


# ---- files ---------------------------------------------------------------------------------------


def test_files_that_are_no_photos(session, tiny_model) -> None:
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


def test_fifty_megapixels_are_refused(session, tiny_model) -> None:
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
