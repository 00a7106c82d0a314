"""Edits by a model: kept pixels and known tokens stay, and hidden ones never matter."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from maskgit_core import SamplingConfig
from maskgit_core.editing.masks import open_with_mask

QUICK = SamplingConfig(num_steps=3)
K = tiny.TOKENIZER.codebook_size
SHARED = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "CMYK", "LA", "I;16"])
def test_kept_pixels_are_those_of_the_input(tiny_model, mode):
    if mode == "I;16":
        values = np.random.default_rng(0).integers(0, 256, (24, 20)) * 257
        photo = Image.fromarray(values.astype(np.uint16))
        wanted = Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
    else:
        photo = tiny.picture(0, mode=mode)
        wanted = photo
    if mode == "RGBA":
        photo.putalpha(tiny.picture(5, mode="L"))
    if mode == "LA":
        photo.putalpha(tiny.picture(5, mode="L"))
        wanted = photo.convert("RGBA")
    mask = tiny.left_half()
    result = tiny_model.inpaint(photo, mask, "sea", QUICK, seed=1)
    assert result.image.size == photo.size
    assert result.image.mode == ("RGBA" if mode in ("RGBA", "LA") else "RGB")
    kept = np.array(wanted.convert(result.image.mode))[~mask]
    assert np.array_equal(np.array(result.image)[~mask], kept)
    assert not np.array_equal(
        np.array(result.image)[mask], np.array(wanted.convert(result.image.mode))[mask]
    )
    assert result.tokens.shape == (1, 4, 4) and result.tokens.max() < K


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 3), (16, 16), (200, 64)])
def test_photos_of_any_shape(tiny_model, size):
    photo, mask = tiny.picture(3, size), tiny.left_half(size)
    result = tiny_model.inpaint(photo, mask, None, QUICK, seed=0)
    assert result.image.size == size
    assert np.array_equal(np.array(result.image)[~mask], np.array(photo)[~mask])


@SHARED
@given(st.data())
def test_hidden_pixels_never_matter(tiny_model, data):
    size = data.draw(st.tuples(st.integers(2, 40), st.integers(2, 40)))
    rows = data.draw(st.tuples(st.integers(0, size[1] - 1), st.integers(1, size[1])))
    columns = data.draw(st.tuples(st.integers(0, size[0] - 1), st.integers(1, size[0])))
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[rows[0] : rows[0] + rows[1], columns[0] : columns[0] + columns[1]] = True
    photo = tiny.picture(data.draw(st.integers(0, 99)), size)
    other = np.array(photo)
    other[mask] = np.random.default_rng(1).integers(0, 256, (int(mask.sum()), 3))
    first, second = (
        tiny_model.inpaint(image, mask, "sea", QUICK, seed=4)
        for image in (photo, Image.fromarray(other))
    )
    assert torch.equal(first.tokens, second.tokens)
    assert first.image.tobytes() == second.image.tobytes()
    assert np.array_equal(np.array(first.image)[~mask], np.array(photo)[~mask])


def test_known_tokens_stay_through_every_step(tiny_model):
    photo = tiny.picture(2, (64, 64))
    mask = np.zeros((64, 64), dtype=bool)
    mask[40:, 40:] = True
    plan = tiny_model.plan_inpaint(photo, mask)
    known = tiny_model.encode(plan.blanked)
    keep = ~plan.token_mask
    assert keep.any() and plan.token_mask.any()
    seen = 0
    for step in tiny_model.inpaint_steps(photo, mask, label="forest", config=QUICK, seed=2):
        assert torch.equal(step.tokens[0][keep], known[0][keep])
        assert not step.newly_revealed[0][keep].any()
        assert (step.confidence[0][keep] == 0).all()
        seen += 1
    assert seen == step.num_steps == 3
    result = tiny_model.inpaint(photo, mask, label="forest", config=QUICK, seed=2)
    assert torch.equal(result.tokens, step.tokens)


def test_the_class_of_an_edit_counts(tiny_model):
    photo, mask = tiny.picture(2, (16, 16)), np.ones((16, 16), dtype=bool)
    results = [tiny_model.inpaint(photo, mask, label, QUICK, seed=0) for label in (0, 1, None)]
    assert len({result.image.tobytes() for result in results}) == 3


def test_a_whole_photo_can_be_repainted(tiny_model):
    photo = tiny.picture(2)
    result = tiny_model.inpaint(photo, np.ones((24, 20), dtype=bool), "sea", QUICK)
    assert result.image.size == photo.size


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((24, 20), dtype=bool), "something painted"),
        (np.ones((20, 24), dtype=bool), "as large as the photo, 20 x 24"),
        ("everything", "pixel_mask must be an array"),
    ],
)
def test_a_bad_mask_is_refused(tiny_model, mask, message):
    with pytest.raises(ValueError, match=message):
        tiny_model.inpaint_steps(tiny.picture(0), mask, "sea", QUICK)


def test_inputs_are_not_changed(tiny_model):
    photo, mask = tiny.picture(0), tiny.left_half()
    before = photo.tobytes(), mask.tobytes()
    tiny_model.inpaint(photo, mask, "sea", QUICK)
    assert (photo.tobytes(), mask.tobytes()) == before
    tokens = torch.full((1, 4, 4), K)
    list(tiny_model.decode_tokens_steps(tokens, ["sea"], QUICK))
    assert bool((tokens == K).all())


def test_variations_of_an_edit_are_seeds_of_their_own(tiny_model):
    plan = tiny_model.plan_inpaint(tiny.picture(0), tiny.left_half())
    for step in tiny_model.edit_steps(plan, "sea", QUICK, seed=5, count=3):
        tokens = step.tokens
    alone = tiny_model.inpaint(tiny.picture(0), tiny.left_half(), "sea", QUICK, seed=7)
    assert torch.equal(tokens[2], alone.tokens[0])
    assert not torch.equal(tokens[0], tokens[1])


def test_outpainting_keeps_the_photo(tiny_model):
    photo = tiny.picture(1, (32, 32))
    result = tiny_model.outpaint(photo, "sea", QUICK, seed=0, right=0.5)
    assert result.image.size == (48, 32)
    assert np.array_equal(np.array(result.image)[:, :32], np.array(photo))
    with pytest.raises(ValueError, match="must be above 0"):
        tiny_model.outpaint(photo, "sea", QUICK)


# ---- frames, boxes, colours ----------------------------------------------------------------------

TURNS = {  # EXIF orientation -> how the stored pixels are turned to be upright
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, *range(2, a.ndim))),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.transpose(np.rot90(a, 2), (1, 0, *range(2, a.ndim))),
    8: np.rot90,
}


def turned_file(orientation: int, size: tuple[int, int], kind: str = "PNG") -> io.BytesIO:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    tiny.picture(4, size).save(buffer, kind, exif=exif)
    return buffer


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(24, 24), (32, 20), (20, 32)])
def test_the_mask_follows_the_photo_as_its_caller_sees_it(tiny_model, size, orientation):
    photo = Image.open(turned_file(orientation, size))
    mask = Image.new("L", photo.size, 0)
    mask.paste(255, (2, 1, 9, 6))
    painted = np.asarray(mask) > 0
    result = tiny_model.inpaint(photo, mask, "sea", QUICK, seed=3).image
    assert result.size == photo.size == size
    changed = (np.asarray(result) != np.asarray(photo)).any(-1)
    assert not changed[~painted].any() and changed[painted].mean() > 0.5
    plain = tiny_model.inpaint(tiny.picture(4, size), painted, "sea", QUICK, seed=3).image
    assert result.tobytes() == plain.tobytes()
    # Saved with the orientation that it still has, it is shown as the photo is.
    assert result.getexif().get(0x0112, 1) == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(24, 24), (32, 20)])
def test_a_file_and_its_mask_are_upright_unless_the_mask_fits_the_stored_photo_alone(
    size, orientation
):
    content = turned_file(orientation, size).getvalue()
    stored = np.asarray(tiny.picture(4, size))
    upright = TURNS[orientation](stored)

    def saved(mask: Image.Image) -> bytes:
        buffer = io.BytesIO()
        mask.save(buffer, "PNG")
        return buffer.getvalue()

    drawn = Image.new("L", upright.shape[1::-1], 255)
    photo, mask = open_with_mask(content, saved(drawn))
    assert np.array_equal(np.asarray(photo), upright) and mask.size == photo.size
    assert photo.getexif().get(0x0112, 1) == 1
    if upright.shape != stored.shape:
        photo, mask = open_with_mask(content, saved(Image.new("L", size, 255)))
        assert np.array_equal(np.asarray(photo), stored) and mask.size == photo.size
        assert photo.getexif()[0x0112] == orientation
    # A mask that an editor saved with the orientation of the photo is turned like it.
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(np.full(stored.shape[:2], 255, np.uint8)).save(buffer, "PNG", exif=exif)
    photo, mask = open_with_mask(content, buffer.getvalue())
    assert np.array_equal(np.asarray(photo), upright) and mask.size == photo.size


def test_a_small_hole_in_a_large_photo_gets_the_models_pixels(tiny_model):
    photo = tiny.picture(3, (900, 700))
    mask = np.zeros((700, 900), bool)
    mask[600:640, 820:860] = True
    plan = tiny_model.plan_inpaint(photo, mask)
    left, top, right, bottom = plan.box
    assert right - left == bottom - top == 80  # the hole is half as wide
    assert 0 <= left <= 820 and right <= 900 and 0 <= top <= 600 and bottom <= 700
    result = tiny_model.inpaint(photo, mask, "sea", QUICK, seed=1)
    assert np.array_equal(np.asarray(result.image)[~mask], np.asarray(photo)[~mask])
    # Nothing outside the box decides what is painted.
    other = np.array(photo)
    outside = np.ones(mask.shape, bool)
    outside[top:bottom, left:right] = False
    other[outside] = 0
    again = tiny_model.inpaint(Image.fromarray(other), mask, "sea", QUICK, seed=1)
    assert torch.equal(again.tokens, result.tokens)


@SHARED
@given(st.data())
def test_a_box_of_the_callers_changes_what_is_seen_and_no_invariant(tiny_model, data):
    size = data.draw(st.tuples(st.integers(8, 60), st.integers(8, 60)))
    left, top = (data.draw(st.integers(0, side - 4)) for side in size)
    mask = np.zeros((size[1], size[0]), bool)
    mask[top : top + 3, left : left + 3] = True
    grow = [data.draw(st.integers(0, 30)) for _ in range(4)]
    box = [left - grow[0], top - grow[1], left + 3 + grow[2], top + 3 + grow[3]]
    photo = tiny.picture(1, size)
    other = np.array(photo)
    other[mask] = 255 - other[mask]
    first, second = (
        tiny_model.inpaint(image, mask, "sea", QUICK, seed=4, box=box)
        for image in (photo, Image.fromarray(other))
    )
    assert first.image.tobytes() == second.image.tobytes()
    assert np.array_equal(np.asarray(first.image)[~mask], np.asarray(photo)[~mask])
    *_, last = tiny_model.inpaint_steps(photo, mask, "sea", QUICK, 4, box=box)
    assert torch.equal(last.tokens, first.tokens)


@pytest.mark.parametrize(
    "box", [(0, 0, 5, 5), (9, 0, 3, 24), (0, 0, 20), "box", 7, (0, 0, 20.5, 24), (-9e9, 0, 9e9, 24)]
)
def test_a_bad_box_is_refused(tiny_model, box):
    with pytest.raises(ValueError, match="^box must"):
        tiny_model.inpaint(tiny.picture(0), tiny.left_half(), "sea", QUICK, box=box)
    with pytest.raises(ValueError, match="^box must have at most"):
        far = (-(10**6), -(10**6), 10**6, 10**6)
        tiny_model.plan_inpaint(tiny.picture(0), tiny.left_half(), far)


def test_a_canvas_that_would_be_too_large_is_refused_before_it_takes_memory(
    tiny_model, monkeypatch
):
    photo = Image.new("RGB", (5000, 4000))
    made = []
    real = Image.new
    monkeypatch.setattr(Image, "new", lambda *a, **k: made.append(a) or real(*a, **k))
    with pytest.raises(ValueError, match="at most 40 megapixels; got 10000 x 8000"):
        tiny_model.plan_outpaint(photo, right=1.0, down=1.0)
    assert not made


def test_a_class_number_may_be_text(tiny_model):
    photo, mask = tiny.picture(2, (16, 16)), np.ones((16, 16), dtype=bool)
    number, text, name = (
        tiny_model.inpaint(photo, mask, label, QUICK).image.tobytes() for label in (1, " 1", "sea")
    )
    assert number == text == name
    none, word = (tiny_model.inpaint(photo, mask, x, QUICK).image.tobytes() for x in (None, "None"))
    assert none == word != number
