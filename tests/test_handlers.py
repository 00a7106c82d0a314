"""Requests: what is accepted, what is refused in one sentence, and what a run then holds."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from browser_model import tiny_model as larger_model
from demo import compare, edits, exports, frames, handlers, messages, photos, recipes, redo
from demo.edit_session import EXTEND, REPAINT, EditSession
from demo.photos import PhotoStore
from demo.render import data_url
from demo.settings import (
    FIELDS,
    PRESETS,
    RequestError,
    build_config,
    match_class,
    parse_seed,
    preset_of,
    shown_values,
)
from demo.tour import TOUR_STEPS, hidden_cells, tour_pictures, tour_run

CLASSES = ["forest", "sea", "été"]


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, True, "abc", "", "1e99", "nan", "inf", -1, 2**31, 0.5, "٣x", [], {}]
)
def test_seed_that_is_none_is_refused(value) -> None:
    with pytest.raises(RequestError, match="^Seed must be a whole number"):
        parse_seed(value)


@pytest.mark.parametrize(("value", "seed"), [(0, 0), ("7", 7), (" 8 ", 8), (3.0, 3), ("4.0", 4)])
def test_seed_may_come_as_text(value, seed: int) -> None:
    assert parse_seed(value) == seed


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_valid_and_known_by_their_values(name: str) -> None:
    config = build_config(PRESETS[name])
    assert preset_of(PRESETS[name]) == name
    assert shown_values(config) == PRESETS[name]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_is_bounded_and_reaches_the_configuration(field) -> None:
    bad = ["nonsense", None] if field.choices else [field.low - 1, field.high + 1, "x", None]
    for value in bad:
        with pytest.raises(RequestError, match=field.label):
            build_config({field.name: value})
    seen = set()
    for value in field.choices or (field.low, (field.low + field.high) / 2, field.high):
        value = int(value) if field.whole else value
        seen.add(getattr(build_config({field.name: value}), field.name))
    assert len(seen) >= 2


def test_off_means_none() -> None:
    config = build_config({"top_k": 0, "top_p": 1})
    assert config.top_k is None and config.top_p is None


def test_unknown_setting_is_named() -> None:
    with pytest.raises(RequestError, match="'steps' is no setting"):
        build_config({"steps": 3})


@pytest.mark.parametrize(("name", "index"), [("sea", 1), ("SEA", 1), (" Été ", 2), (0, 0)])
def test_class_by_name_in_any_case_or_number(name, index: int) -> None:
    assert match_class(name, CLASSES) == index


@pytest.mark.parametrize("name", ["", "seas", -1, 3, True, None, "<b>"])
def test_unknown_class_lists_known_ones(name) -> None:
    with pytest.raises(RequestError, match="forest, sea"):
        match_class(name, CLASSES)


# ---- links and recipes ---------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["class", "images", "seed", "order", "top_p", "num_steps", "__theme", "x"]
            ),
            st.text(),
        ),
        max_size=12,
    )
)
def test_a_link_is_never_an_error_and_never_out_of_range(parameters) -> None:
    found = recipes.settings_from_link(CLASSES, parameters)
    if found is not None:
        build_config({field.name: found[field.name] for field in FIELDS})
        assert 1 <= found.get("count", 1) <= 16
        parse_seed(found.get("seed", 0))
        assert set(found.get("classes", [])) <= set(CLASSES)


def test_a_link_is_clamped() -> None:
    found = recipes.settings_from_link(
        CLASSES,
        [
            ("class", "sea"),
            ("class", "moon"),
            ("images", "900"),
            ("num_steps", "0"),
            ("order", "halton"),
            ("temperature", "nan"),
            ("seed", "-3"),
        ],
    )
    assert found["classes"] == ["sea"]
    assert (found["count"], found["num_steps"], found["order"]) == (16, 1, "halton")
    assert found["temperature"] == 1.0 and "seed" not in found


def test_a_link_without_settings_changes_nothing() -> None:
    assert recipes.settings_from_link(CLASSES, [("__theme", "dark")]) is None


def test_recipe_of_a_run_reproduces_its_request(tiny_model) -> None:
    request = handlers.parse_generate(
        tiny_model, ["sea", "forest"], 3, 5, {"num_steps": 4, "order": "halton", "top_k": 3}
    )
    text = json.dumps(handlers.generate_recipe(tiny_model, request))
    found = recipes.settings_from_recipe(list(tiny_model.classes), text)
    again = handlers.parse_generate(
        tiny_model,
        found["classes"],
        found["count"],
        found["seed"],
        {field.name: found[field.name] for field in FIELDS},
    )
    assert again == request


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        "[" * 60_000,
        '{"classes": "sea"}',
        '{"classes": ["moon"]}',
        '{"classes": ["sea"], "count": 99}',
        '{"classes": ["sea"], "evil": 1}',
        '{"classes": ["sea"], "num_steps": "many"}',
        " " * 200_000,
    ],
)
def test_bad_recipes_are_refused_in_words(text: str) -> None:
    with pytest.raises(RequestError):
        recipes.settings_from_recipe(CLASSES, text)


# ---- generating ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "count", "seed", "word"),
    [
        ([], 1, 0, "at least one class"),
        (None, 1, 0, "at least one class"),
        (["moon"], 1, 0, "moon"),
        (["sea"], 0, 0, "Images"),
        (["sea"], 10_000, 0, "Images"),
        (["sea"], 1, "x", "Seed"),
    ],
)
def test_bad_requests(tiny_model, classes, count, seed, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        handlers.parse_generate(tiny_model, classes, count, seed, {})


def test_classes_take_turns(tiny_model) -> None:
    request = handlers.parse_generate(tiny_model, ["sea", "forest"], 5, 0, {})
    assert request.labels == (1, 0, 1, 0, 1)
    assert len(handlers.parse_generate(tiny_model, ["sea"] * 100_000, 2, 0, {}).labels) == 2


def test_a_run_equals_the_pipeline_and_shows_every_step(tiny_model) -> None:
    request = handlers.parse_generate(tiny_model, ["sea"], 2, 3, {"num_steps": 4})
    runs = list(handlers.generate_run(tiny_model, request))
    run, images = runs[-1]
    assert [len(seen["frames"]) for seen, _ in runs] == [0, 1, 2, 3, 4, 4]
    assert all(not made for _, made in runs[:-1])
    expected = tiny_model.generate(labels=[1, 1], config=request.config, seed=3)
    codes = np.empty(2 * 16, dtype=int)
    for frame in run["frames"]:
        codes[frame["cells"]] = frame["ids"]
    assert codes.tolist() == expected.tokens.flatten().tolist()
    pixels = ((expected.images[1] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(images[1]).astype(int) - pixels).max() <= 1
    assert run["plan"][0] == 1.0 and run["plan"][-1] == 0.0
    assert run["seconds"] is not None


def test_a_run_is_plain_data(tiny_model) -> None:
    request = handlers.parse_generate(tiny_model, ["été"], 1, 0, {"num_steps": 2})
    *_, (run, _) = handlers.generate_run(tiny_model, request)
    assert json.loads(json.dumps(run)) == run


def test_four_images_in_twelve_steps_take_little_to_send() -> None:
    model = larger_model(grid_size=12, codebook_size=1024)
    request = handlers.parse_generate(model, model.classes, 4, 0, {})
    *_, (run, _) = handlers.generate_run(model, request)
    # Noise, as this model makes it, packs worse than any photo.
    assert len(json.dumps(run)) < 600_000
    codebook = frames.codebook_payload("m", model.codebook_patches())
    assert len(json.dumps(codebook)) < 300_000


CHANGES = {
    "num_steps": 3,
    "order": "raster",
    "schedule": "linear",
    "guidance_scale": 6.0,
    "guidance_schedule": "linear",
    "temperature": 0.5,
    "choice_temperature": 0.0,
    "top_k": 2,
    "top_p": 0.3,
}


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
def test_every_setting_changes_the_result(name: str) -> None:
    model = larger_model()
    usual = PRESETS["Balanced"]

    def tokens(values: dict) -> list:
        request = handlers.parse_generate(model, model.classes, 8, 1, values)
        *_, (run, _) = handlers.generate_run(model, request)
        return frames.tokens_after(run).tolist()

    assert usual[name] != CHANGES[name]
    assert tokens(usual) != tokens({**usual, name: CHANGES[name]})


def test_a_run_that_takes_too_long_is_stopped(tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(handlers, "MAX_RUN_SECONDS", -1.0)
    request = handlers.parse_generate(tiny_model, ["sea"], 1, 0, {"num_steps": 3})
    with pytest.raises(RequestError, match="too long"):
        list(handlers.generate_run(tiny_model, request))


# ---- cells decided again -------------------------------------------------------------------------


@pytest.fixture
def finished(tiny_model) -> dict:
    request = handlers.parse_generate(tiny_model, ["sea", "forest"], 2, 3, {"num_steps": 4})
    *_, (run, _) = handlers.generate_run(tiny_model, request)
    return run


@pytest.mark.parametrize("keep", [False, True])
def test_only_the_asked_cells_are_decided_again(tiny_model, finished, keep: bool) -> None:
    cells = [0, 1, 5, 9]  # all in the first image
    selection = {"run": finished["run"], "cells": cells}
    request = redo.parse_redo(finished, selection, keep, {"num_steps": 3, "temperature": 2})
    *_, (run, images) = redo.redo_run(tiny_model, request)
    before, after = frames.tokens_after(finished), frames.tokens_after(run)
    marked = np.zeros(before.shape, dtype=bool)
    marked.reshape(-1)[cells] = True
    again = marked if not keep else ~marked & np.array([True, False])[:, None, None]
    assert (after[~again] == before[~again]).all()
    decided = sorted(cell for frame in run["frames"] for cell in frame["cells"])
    assert decided == np.flatnonzero(again).tolist()
    assert len(images) == 2 and run["result"]
    with pytest.raises(RequestError, match="no recipe"):
        exports.recipe_text(run)


def test_bad_selections(finished) -> None:
    every = list(range(32))
    cases = [
        (None, None, "Generate something"),
        (finished, None, "mark some cells"),
        (finished, {"run": "other", "cells": [1]}, "mark some cells"),
        (finished, {"run": finished["run"], "cells": []}, "mark some cells"),
        (finished, {"run": finished["run"], "cells": [99]}, "not in these images"),
        (finished, {"run": finished["run"], "cells": ["1"]}, "not in these images"),
        (finished, {"run": finished["run"], "cells": [-1]}, "not in these images"),
    ]
    for run, selection, word in cases:
        with pytest.raises(RequestError, match=word):
            redo.parse_redo(run, selection, False, {})
    with pytest.raises(RequestError, match="nothing to decide"):
        redo.parse_redo(finished, {"run": finished["run"], "cells": every}, True, {})


# ---- comparing and explaining --------------------------------------------------------------------


@pytest.mark.parametrize("what", list(compare.CHOICES))
def test_comparison_equals_single_runs(tiny_model, what: str) -> None:
    request = compare.parse_compare(tiny_model, "sea", 5, what, {"num_steps": 3})
    *_, (run, images) = compare.compare_run(tiny_model, request)
    tokens = frames.tokens_after(run)
    for index, config in enumerate(request.configs):
        alone = tiny_model.generate(labels=["sea"], config=config, seed=5)
        assert tokens[index].tolist() == alone.tokens[0].tolist()
    assert len(images) == len(request.names) == 4
    assert all(" steps, " in caption for caption in run["captions"])


def test_bad_comparisons(tiny_model) -> None:
    for arguments in (
        (None, 1, "Order"),
        ("moon", 1, "Order"),
        ("sea", -1, "Order"),
        ("sea", 1, "Colour"),
    ):
        with pytest.raises(RequestError):
            compare.parse_compare(tiny_model, *arguments, {})


def test_tour_measures_what_the_tokenizer_loses(tiny_model) -> None:
    shown = tour_pictures(tiny_model, photo((50, 20), "RGBA"))
    assert shown["cells"] == 16 and shown["codes"] == 32
    assert 1 <= shown["different"] <= 16 and 0 < shown["psnr"] < 40
    assert all(
        shown[key].startswith("data:image/") for key in ("photo", "tokens", "back", "hidden")
    )


def test_tour_fills_only_the_hidden_cells_of_its_example(tiny_model) -> None:
    *_, (run, images) = tour_run(tiny_model, photo((50, 20)))
    assert len(run["frames"]) == TOUR_STEPS and len(images) == 1
    known = np.array(run["known"]).reshape(4, 4)
    assert ((known == run["mask_id"]) == hidden_cells((4, 4))[0]).all()
    kept = known != run["mask_id"]
    assert (frames.tokens_after(run)[0][kept] == known[kept]).all()


# ---- editing -------------------------------------------------------------------------------------


def photo(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


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
    *_, (run, images) = edits.edit_run(session.model, request)
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
            grids[percent, name] = edits.start_tokens(session.model, request)
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


def test_notices_never_carry_markup(monkeypatch) -> None:
    said = []
    monkeypatch.setattr(messages.gr, "Warning", lambda text, **_: said.append(text))
    with messages.explain():
        raise RequestError("There is no class '<img src=x onerror=alert(1)>'.")
    with messages.explain():
        raise KeyError("secret")
    assert "<" not in said[0] and "&lt;img" in said[0]
    assert "secret" not in said[1] and "try again" in said[1]
