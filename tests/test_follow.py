"""Runs of the page: generating, cells decided again, comparisons, the tour."""

from __future__ import annotations

import itertools
import json
from functools import partial

import numpy as np
import pytest

from browser_model import tiny_model as larger_model
from demo.presets import PRESETS
from demo.runs import compare, exports, frames
from demo.runs.follow import Progress, follow
from demo.runs.generate import parse_generate
from demo.runs.redo import parse_redo
from demo.runs.tour import TOUR_STEPS, hidden_cells, tour_pictures, tour_request
from demo.serving import steps
from demo.serving.request import Request
from demo.serving.steps import decode_alone
from demo.settings import FIELDS, RequestError
from maskgit_core.decoding.previews import LivePictures
from odd_images import noise


def finished(model, request: Request) -> Progress:
    return list(follow(request, decode_alone(model)))[-1]


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
        parse_generate(tiny_model, classes, count, seed, {})


def test_classes_take_turns(tiny_model) -> None:
    request = parse_generate(tiny_model, ["sea", "forest"], 5, 0, {})
    assert request.labels == (1, 0, 1, 0, 1)
    assert len(parse_generate(tiny_model, ["sea"] * 100_000, 2, 0, {}).labels) == 2


def test_a_run_equals_the_pipeline_and_shows_every_step(tiny_model, monkeypatch) -> None:
    # On a busy machine pictures could come late, and once more.
    monkeypatch.setattr("demo.serving.steps.LivePictures", partial(LivePictures, share=1.0))
    request = parse_generate(tiny_model, ["sea"], 2, 3, {"num_steps": 4})
    seen = list(follow(request, decode_alone(tiny_model)))
    run, images = seen[-1].run, seen[-1].images
    assert [len(progress.run["frames"]) for progress in seen] == [0, 1, 2, 3, 4, 4]
    assert not any(progress.images for progress in seen[:-1])
    expected = tiny_model.generate(labels=[1, 1], config=request.configs[0], seed=3)
    codes = np.empty(2 * 16, dtype=int)
    for frame in run["frames"]:
        codes[frame["cells"]] = frame["ids"]
    assert codes.tolist() == expected.tokens.flatten().tolist()
    pixels = ((expected.images[1] + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(images[1]).astype(int) - pixels).max() <= 1
    assert run["plan"][0] == 1.0 and run["plan"][-1] == 0.0
    assert run["seconds"] is not None


def test_a_run_is_plain_data(tiny_model) -> None:
    request = parse_generate(tiny_model, ["été"], 1, 0, {"num_steps": 2})
    run = finished(tiny_model, request).run
    assert json.loads(json.dumps(run)) == run


def test_the_log_tells_the_run_and_every_step_once(tiny_model, monkeypatch) -> None:
    monkeypatch.setattr("demo.serving.steps.LivePictures", partial(LivePictures, share=1e-9))
    request = parse_generate(tiny_model, ["sea"], 2, 3, {"num_steps": 6})
    seen = list(follow(request, decode_alone(tiny_model)))
    for before, after in itertools.pairwise(seen):
        assert after.log.startswith(before.log)
    head, *events = [json.loads(line) for line in seen[-1].log.splitlines()]
    run = frames.new_run(head)
    for event in events:
        run = frames.grown(run, event)
    assert run == seen[-1].run
    kinds = [next(iter(event)) for event in events]
    assert kinds[:7] == ["frame"] * 6 + ["result"] and set(kinds[7:]) == {"pictures"}


def test_what_a_run_sends_grows_with_its_steps_and_not_with_their_square() -> None:
    model = larger_model(grid_size=12, codebook_size=1024)
    sizes = []
    for num_steps in (8, 32):
        request = parse_generate(model, ["sea"], 16, 1, {"num_steps": num_steps})
        sizes.append(len(finished(model, request).log))
    assert sizes[1] < 4.4 * sizes[0]


def test_four_images_in_twelve_steps_take_little_to_send() -> None:
    model = larger_model(grid_size=12, codebook_size=1024)
    request = parse_generate(model, model.classes, 4, 0, {})
    run = finished(model, request).run
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
    "guidance_power": 0.5,
    "first_step_temperature": 3.0,
    "last_step_temperature": 3.0,
    "noise_schedule": "endpoints",
}
# What a setting needs beside it to mean anything.
WITH = {"guidance_power": {"guidance_schedule": "power_cosine"}}


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
def test_every_setting_changes_the_result(name: str) -> None:
    model = larger_model()
    usual = {**PRESETS["Balanced"], **WITH.get(name, {})}

    def tokens(values: dict) -> list:
        request = parse_generate(model, model.classes, 8, 1, values)
        run = finished(model, request).run
        return frames.tokens_after(run).tolist()

    assert usual[name] != CHANGES[name]
    assert tokens(usual) != tokens({**usual, name: CHANGES[name]})


def test_a_run_that_takes_too_long_is_stopped(tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(steps, "MAX_RUN_SECONDS", -1.0)
    request = parse_generate(tiny_model, ["sea"], 1, 0, {"num_steps": 3})
    with pytest.raises(RequestError, match="too long"):
        finished(tiny_model, request)


# ---- cells decided again -------------------------------------------------------------------------


@pytest.fixture
def done(tiny_model) -> dict:
    request = parse_generate(tiny_model, ["sea", "forest"], 2, 3, {"num_steps": 4})
    return finished(tiny_model, request).run


@pytest.mark.parametrize("keep", [False, True])
def test_only_the_asked_cells_are_decided_again(tiny_model, done, keep: bool) -> None:
    cells = [0, 1, 5, 9]  # all in the first image
    selection = {"run": done["run"], "cells": cells}
    request = parse_redo(tiny_model, done, selection, keep, {"num_steps": 3, "temperature": 2})
    made = finished(tiny_model, request)
    run, images = made.run, made.images
    before, after = frames.tokens_after(done), frames.tokens_after(run)
    marked = np.zeros(before.shape, dtype=bool)
    marked.reshape(-1)[cells] = True
    again = marked if not keep else ~marked & np.array([True, False])[:, None, None]
    assert (after[~again] == before[~again]).all()
    decided = sorted(cell for frame in run["frames"] for cell in frame["cells"])
    assert decided == np.flatnonzero(again).tolist()
    assert len(images) == 2 and run["result"]
    with pytest.raises(RequestError, match="no recipe"):
        exports.recipe_text(run)


def test_bad_selections(tiny_model, done) -> None:
    every = list(range(32))
    cases = [
        (None, None, "Generate something"),
        (done, None, "mark some cells"),
        (done, {"run": "other", "cells": [1]}, "mark some cells"),
        (done, {"run": done["run"], "cells": []}, "mark some cells"),
        (done, {"run": done["run"], "cells": [99]}, "not in these images"),
        (done, {"run": done["run"], "cells": ["1"]}, "not in these images"),
        (done, {"run": done["run"], "cells": [-1]}, "not in these images"),
    ]
    for run, selection, word in cases:
        with pytest.raises(RequestError, match=word):
            parse_redo(tiny_model, run, selection, False, {})
    with pytest.raises(RequestError, match="nothing to decide"):
        parse_redo(tiny_model, done, {"run": done["run"], "cells": every}, True, {})


# ---- comparing and explaining --------------------------------------------------------------------


@pytest.mark.parametrize("what", list(compare.CHOICES))
def test_comparison_equals_single_runs(tiny_model, what: str) -> None:
    request = compare.parse_compare(tiny_model, "sea", 5, what, {"num_steps": 3})
    made = finished(tiny_model, request)
    run, images = made.run, made.images
    tokens = frames.tokens_after(run)
    for index, config in enumerate(request.configs):
        alone = tiny_model.generate(labels=["sea"], config=config, seed=5)
        assert tokens[index].tolist() == alone.tokens[0].tolist()
    assert len(images) == len(request.captions) == 4
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
    made = finished(tiny_model, tour_request(tiny_model, noise(1, size=(50, 20))))
    run, images = made.run, made.images
    assert len(run["frames"]) == TOUR_STEPS and len(images) == 1
    known = np.array(run["known"]).reshape(4, 4)
    assert ((known == run["mask_id"]) == hidden_cells((4, 4))[0]).all()
    kept = known != run["mask_id"]
    assert (frames.tokens_after(run)[0][kept] == known[kept]).all()
