"""Runs of the page: generating, cells decided again, comparisons, the tour."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from browser_model import tiny_model as larger_model
from demo.runs import compare, exports, frames, generate, redo
from demo.runs.tour import TOUR_STEPS, hidden_cells, tour_pictures, tour_run
from demo.settings import FIELDS, PRESETS, RequestError
from maskgit_core.decoding.previews import LivePictures
from odd_images import noise

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
        generate.parse_generate(tiny_model, classes, count, seed, {})


def test_classes_take_turns(tiny_model) -> None:
    request = generate.parse_generate(tiny_model, ["sea", "forest"], 5, 0, {})
    assert request.labels == (1, 0, 1, 0, 1)
    assert len(generate.parse_generate(tiny_model, ["sea"] * 100_000, 2, 0, {}).labels) == 2


def test_a_run_equals_the_pipeline_and_shows_every_step(tiny_model, monkeypatch) -> None:
    # On a busy machine pictures could come late, and once more.
    monkeypatch.setattr("demo.serving.decoding.LivePictures", partial(LivePictures, share=1.0))
    request = generate.parse_generate(tiny_model, ["sea"], 2, 3, {"num_steps": 4})
    runs = list(generate.generate_run(tiny_model, request))
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
    request = generate.parse_generate(tiny_model, ["été"], 1, 0, {"num_steps": 2})
    *_, (run, _) = generate.generate_run(tiny_model, request)
    assert json.loads(json.dumps(run)) == run


def test_four_images_in_twelve_steps_take_little_to_send() -> None:
    model = larger_model(grid_size=12, codebook_size=1024)
    request = generate.parse_generate(model, model.classes, 4, 0, {})
    *_, (run, _) = generate.generate_run(model, request)
    # Noise, as this model makes it, packs worse than any photo.
    assert len(json.dumps(run)) < 600_000
    codebook = frames.codebook_payload("m", model.codebook_patches())
    assert len(json.dumps(codebook)) < 300_000


CHANGES = {
    "num_steps": 3,
    "order": "raster",
    "schedule": "linear",
    "guidance_scale": 6.0,
    "guidance_schedule": "constant",
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
        request = generate.parse_generate(model, model.classes, 8, 1, values)
        *_, (run, _) = generate.generate_run(model, request)
        return frames.tokens_after(run).tolist()

    assert usual[name] != CHANGES[name]
    assert tokens(usual) != tokens({**usual, name: CHANGES[name]})


def test_a_run_that_takes_too_long_is_stopped(tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(generate, "MAX_RUN_SECONDS", -1.0)
    request = generate.parse_generate(tiny_model, ["sea"], 1, 0, {"num_steps": 3})
    with pytest.raises(RequestError, match="too long"):
        list(generate.generate_run(tiny_model, request))


# ---- cells decided again -------------------------------------------------------------------------


@pytest.fixture
def finished(tiny_model) -> dict:
    request = generate.parse_generate(tiny_model, ["sea", "forest"], 2, 3, {"num_steps": 4})
    *_, (run, _) = generate.generate_run(tiny_model, request)
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
    shown = tour_pictures(tiny_model, noise(1, "RGBA", (50, 20)))
    assert shown["cells"] == 16 and shown["codes"] == 32
    assert 1 <= shown["different"] <= 16 and 0 < shown["psnr"] < 40
    assert all(
        shown[key].startswith("data:image/") for key in ("photo", "tokens", "back", "hidden")
    )


def test_tour_fills_only_the_hidden_cells_of_its_example(tiny_model) -> None:
    *_, (run, images) = tour_run(tiny_model, noise(1, size=(50, 20)))
    assert len(run["frames"]) == TOUR_STEPS and len(images) == 1
    known = np.array(run["known"]).reshape(4, 4)
    assert ((known == run["mask_id"]) == hidden_cells((4, 4))[0]).all()
    kept = known != run["mask_id"]
    assert (frames.tokens_after(run)[0][kept] == known[kept]).all()
