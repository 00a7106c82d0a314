"""The frame over a photo: what the visitor may ask for, and what an edit makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from demo.runs import edit_frame
from demo.runs.edit_session import EXTEND, EditSession, Task
from demo.runs.follow import follow
from demo.runs.photos import PhotoStore, painted_mask
from demo.runs.render import data_url
from demo.serving.request import Request
from demo.serving.steps import decode_alone
from demo.settings import RequestError

SIZE = (300, 120)


@pytest.fixture
def session(tiny_model, tmp_path: Path) -> EditSession:
    return EditSession(tiny_model, PhotoStore(tmp_path / "store"))


def wide_photo() -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def painted(boxes: list[tuple[int, int, int, int]], frame: list[float] | None) -> dict:
    mask = Image.new("L", (512, 205), 0)
    for box in boxes:
        mask.paste(255, box)
    return {"key": "k", "mask": data_url(mask.convert("RGB"), lossless=True), "frame": frame}


def request(session: EditSession, model, value: dict, kept: str) -> Request:
    return session.request(model, Task(kept, value), "No class", 1, 0, {"num_steps": 2})


shares = st.floats(-1e-3, 1 + 1e-3)


@given(shares, shares, shares, st.integers(1, 5000), st.integers(1, 5000))
def test_a_frame_is_always_a_square_on_the_photo(left, top, side, width, height) -> None:
    box = edit_frame.parse_frame([left, top, side], (width, height))
    assert box is not None
    assert 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
    assert box[2] - box[0] == box[3] - box[1]
    # Where there is room, it lies where it was asked for.
    if 0 <= left * width <= width - (box[2] - box[0]):
        assert abs(box[0] - left * width) <= 0.5


@pytest.mark.parametrize("frame", ["x", [1], [0, 0, "a"], [0, 0, None], [0, 2, 1], {"x": 1}, 7])
def test_nonsense_is_no_frame(frame) -> None:
    with pytest.raises(RequestError, match="frame"):
        edit_frame.parse_frame(frame, SIZE)


def test_only_paint_inside_the_frame_is_repainted_and_all_else_stays(session, tiny_model) -> None:
    _, kept = session.open(wide_photo())
    left, right = (40, 60, 90, 120), (400, 60, 450, 120)
    value = painted([left, right], [0, 0, 1])
    plan = request(session, tiny_model, value, kept).plan
    assert plan.box == (0, 0, 120, 120)
    *_, last = follow(request(session, tiny_model, value, kept), decode_alone(tiny_model))
    (after,) = last.images
    changed = (np.asarray(after) != np.asarray(wide_photo())).any(-1)
    mask = painted_mask(value, SIZE)
    assert after.size == SIZE and changed.any()
    assert not changed[~mask].any()
    assert not changed[:, 120:].any() and mask[:, 120:].any()


def test_the_model_sees_what_the_frame_shows(session, tiny_model) -> None:
    _, kept = session.open(wide_photo())
    value = painted([(240, 90, 260, 110)], None)
    automatic = request(session, tiny_model, value, kept).plan
    moved = request(session, tiny_model, {**value, "frame": [0.4, 0.25, 0.5]}, kept).plan
    assert moved.box == (120, 30, 180, 90) != automatic.box
    run, frame = session.preview(Task(kept, {**value, "frame": [0.4, 0.25, 0.5]}))
    assert np.allclose(frame, [0.4, 0.25, 0.6, 0.75])
    assert (np.array(run["known"]) == run["mask_id"]).sum() == int(moved.token_mask.sum())


def test_paint_outside_the_frame_alone_is_an_error_that_says_what_to_do(
    session, tiny_model
) -> None:
    _, kept = session.open(wide_photo())
    value = painted([(400, 60, 450, 120)], [0, 0, 0.5])
    with pytest.raises(RequestError, match="Automatic frame"):
        request(session, tiny_model, value, kept)
    assert session.preview(Task(kept, value)) is None


def test_small_square_photos_have_nothing_to_frame(session, tiny_model) -> None:
    side = 2 * tiny_model.image_size
    for size, framed in [((side, side), False), ((side + 1,) * 2, True), ((9, 8), True)]:
        assert session.open(Image.new("RGB", size))[0]["framed"] is framed


def test_an_extension_is_shown_before_it_runs(session, tiny_model) -> None:
    _, kept = session.open(wide_photo().resize((64, 64)))
    run, _ = session.preview(Task(kept, None, EXTEND, ["left"], 25))
    unknown = np.array(run["known"]).reshape(run["rows"], run["columns"]) == run["mask_id"]
    assert unknown[:, 0].all() and not unknown[:, -1].any()
    assert session.preview(Task(kept, None, EXTEND, [], 50)) is None
