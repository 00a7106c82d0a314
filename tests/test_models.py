"""The model in use: one at a time, switched through the menu, kept when a switch fails."""

from __future__ import annotations

import gc
import inspect
import re
import shutil
import threading
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import model_folders
import tiny
from demo.presets import PRESETS, preset_of, presets_for, usual_preset
from demo.runs import compare, edit, recipes
from demo.runs.example import first_result
from demo.runs.follow import follow
from demo.runs.generate import parse_generate
from demo.runs.redo import parse_redo
from demo.serving import catalogue, models
from demo.serving.steps import decode_alone
from demo.settings import NO_CLASS, RequestError, build_config, shown_values
from demo.tabs import model_parts
from maskgit_core import MaskGIT, SamplingConfig, hub_client
from maskgit_core.decoding.previews import LivePictures
from maskgit_core.hub_client import FetchError
from maskgit_core.weights import address, download
from maskgit_core.weights.known import KNOWN_WEIGHTS
from maskgit_core.weights.progress import Progress
from model_folders import FIRST, SECOND


@pytest.fixture
def holder(tmp_path: Path) -> models.ModelHolder:
    return model_folders.holder(tmp_path)


def switch(holder: models.ModelHolder, name: str) -> MaskGIT:
    return holder.use(name, holder.fetch(name))


def test_a_switch_changes_the_model_and_all_that_hangs_on_it(holder) -> None:
    assert (holder.name, holder.current.name) == (FIRST, FIRST)
    first = first_result(holder)
    assert switch(holder, SECOND) is holder.current
    assert holder.name == holder.current.name == SECOND
    assert holder.current.classes == model_folders.ANIMALS
    assert first_result(holder) is not first and first_result(holder).run().run["model"] == SECOND
    assert holder.expect(SECOND) is holder.current
    with pytest.raises(RequestError, match="changed to animals"):
        holder.expect(FIRST)


def test_the_old_model_is_gone_before_the_new_one_is_loaded(holder) -> None:
    old = weakref.ref(holder.current)
    seen = []
    load = holder._load

    def watched(folder: Path, name: str) -> MaskGIT:
        gc.collect()
        seen.append(old() is None)
        return load(folder, name)

    holder._load = watched
    switch(holder, SECOND)
    assert seen == [True]


def test_a_run_ends_on_the_model_that_it_began_with(holder, monkeypatch) -> None:
    # Pictures that come late are decoded together, and may be rounded in another way.
    monkeypatch.setattr("demo.serving.steps.LivePictures", partial(LivePictures, share=1.0))
    model = holder.expect(FIRST)
    request = parse_generate(model, ["rose"], 1, 3, {"num_steps": 3})
    *_, alone = follow(request, decode_alone(model))
    run = follow(request, decode_alone(model))
    next(run), next(run)
    switch(holder, SECOND)
    *_, last = run
    assert last.run["model"] == FIRST and len(last.images) == 1
    assert last.run["frames"] == alone.run["frames"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing", "missing cannot be used: it is no longer where it was.*garden stays in use"),
        ("damaged", "damaged cannot be used: its files cannot be read here. garden stays in use"),
        ("nonsense", "Choose a model from the menu"),
    ],
)
def test_a_switch_that_fails_keeps_the_old_model(holder, name: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        switch(holder, name)
    assert (holder.name, holder.current.name) == (FIRST, FIRST)
    assert holder.current.generate(["rose"], seed=1).images.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("error", [OSError("no room"), RuntimeError("odd"), MemoryError()])
def test_any_failure_while_fetching_or_loading_is_one_sentence(holder, error) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    folder = holder.fetch(SECOND)
    load, holder._fetch = holder._load, fail
    with pytest.raises(RequestError, match="animals cannot be used: [^.]+. garden stays in use.$"):
        holder.fetch(SECOND)
    holder._load = lambda folder, name: fail() if name == SECOND else load(folder, name)
    with pytest.raises(RequestError, match="garden stays in use.$"):
        holder.use(SECOND, folder)
    assert holder.current.name == FIRST


def test_without_a_folder_the_old_model_stays_until_the_new_one_is_there(tmp_path) -> None:
    folders = model_folders.write_models(tmp_path)
    entries = [catalogue.ModelEntry(SECOND, str(folders[1]))]
    holder = models.ModelHolder(tiny.model(), entries, load=lambda *_: 1 / 0)
    with pytest.raises(RequestError, match="something went wrong. model stays in use"):
        switch(holder, SECOND)
    assert holder.current.classes == tiny.CLASSES


def test_progress_is_told_while_a_model_is_fetched(holder) -> None:
    go = threading.Event()

    def fetch(source: str, *, progress: Progress) -> Path:
        go.wait(10)
        return Path(source)

    holder._fetch = fetch
    steps = holder.fetch_watched(SECOND, every=0.01)
    assert next(steps).sentence.startswith("Preparing animals")
    go.set()
    with pytest.raises(StopIteration) as end:
        while True:
            next(steps)
    assert end.value.value == holder.fetch(SECOND)


def test_a_fetch_tells_its_share_and_can_be_cancelled(holder) -> None:
    progress = Progress()
    steps = holder.fetch_watched("slow", progress, every=0.01)
    assert next(steps) == ("Fetching slow: 25 MB of 100 MB.", 0.25)
    progress.cancel()
    with pytest.raises(RequestError, match="^The download was cancelled. garden stays in use.$"):
        list(steps)
    assert switch(holder, SECOND).name == SECOND


@pytest.mark.parametrize("reason", models.REASONS)
def test_a_visitor_reads_plain_words_and_the_log_has_the_rest(holder, caplog, reason) -> None:
    def fail(source: str, *, progress: Progress) -> Path:
        raise FetchError(reason, "a.pth of x/y: gaierror 404 3c4a6d8515ac")

    holder._fetch = fail
    with pytest.raises(RequestError) as refused:
        list(holder.fetch_watched(SECOND, every=0.01))
    said = str(refused.value)
    assert not re.search(r"gaierror|\.pth|404|3c4a", said) and said.count(".") == 2
    assert "gaierror 404 3c4a6d8515ac" in caplog.text


def test_every_reason_of_a_fetch_has_words() -> None:
    source = (
        inspect.getsource(hub_client) + inspect.getsource(address) + inspect.getsource(download)
    )
    used = set(re.findall(r'FetchError\(\s*"([a-z ]+)"', source))
    assert used == set(models.REASONS)


def test_a_fixed_model_has_no_menu(tmp_path) -> None:
    holder = model_folders.holder(tmp_path, fixed=True)
    assert holder.entries == ()
    with pytest.raises(RequestError, match="Choose a model"):
        holder.fetch(SECOND)


@pytest.mark.parametrize("name", list(KNOWN_WEIGHTS))
def test_defaults_follow_the_published_settings(name: str) -> None:
    sampling = KNOWN_WEIGHTS[name].sampling
    presets = presets_for(sampling, guided=not name.startswith("google"))
    usual = presets[usual_preset(presets)]
    assert build_config(usual) == sampling
    assert preset_of(usual, presets) == usual_preset(presets)


def test_a_model_like_ours_keeps_the_usual_presets() -> None:
    assert presets_for(SamplingConfig()) == PRESETS
    assert usual_preset(PRESETS) == "Balanced"
    off = presets_for(SamplingConfig(), guided=False)
    assert {values["guidance_scale"] for values in off.values()} == {1.0}


def test_without_a_null_class_what_needs_one_is_refused_in_words(holder) -> None:
    model = switch(holder, SECOND)
    assert model_parts.edit_classes(model) == model_folders.ANIMALS
    with pytest.raises(RequestError, match="Choose a class to fill it with"):
        edit.parse_label(model, NO_CLASS)
    with pytest.raises(RequestError, match="Choose what to compare: Order, Steps, Schedule"):
        compare.parse_compare(model, "cat", 1, "Guidance", {})


def test_images_of_another_model_are_not_decided_again(holder) -> None:
    model = holder.current
    request = parse_generate(model, ["rose"], 1, 3, {"num_steps": 2})
    *_, last = follow(request, decode_alone(model))
    selection = {"run": last.run["run"], "cells": [0]}
    assert parse_redo(model, last.run, selection, False, {}).kind == "redo"
    with pytest.raises(RequestError, match="made with garden"):
        parse_redo(switch(holder, SECOND), last.run, selection, False, {})


def test_links_and_recipes_name_their_model() -> None:
    assert recipes.model_in_link([("seed", "1"), ("model", "animals")]) == "animals"
    assert recipes.model_in_link([]) == ""
    assert recipes.model_in_recipe('{"classes": [], "model": "animals"}') == "animals"
    assert recipes.model_in_recipe('{"classes": [], "model": 7}') == ""
    usual = shown_values(replace(SamplingConfig(), num_steps=9))
    found = recipes.settings_from_link(["sea"], [("seed", "4")], usual)
    assert (found["seed"], found["num_steps"]) == (4, 9)


def test_names_follow_the_source(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    assert MaskGIT.from_pretrained(tiny_checkpoint).name == tiny_checkpoint.name
    assert MaskGIT.from_pretrained(f"{tiny_checkpoint}/").name == tiny_checkpoint.name
    run = shutil.copytree(tiny_checkpoint, tmp_path / "my-photos" / "checkpoint")
    assert MaskGIT.from_pretrained(run).name == "my-photos"
    monkeypatch.setattr("maskgit_core.pipeline.resolve_checkpoint", lambda _: tiny_checkpoint)
    assert MaskGIT.from_pretrained("google-256").name == "google-256"
    assert MaskGIT.from_pretrained("someone/roses").name == "roses"


def test_what_was_fetched_is_loaded_under_its_own_name(holder) -> None:
    # A client may fetch one model and then send another's label with what was fetched.
    from demo.ui import build_demo

    demo = build_demo(holder)
    events = {fn.name: fn for fn in demo.fns.values()}
    *_, last = events["on_fetch"].fn({"chosen": SECOND})
    (arrived,) = [value for value in last.values() if isinstance(value, tuple)]
    assert arrived[0] == SECOND
    rest = [component.value for component in events["on_load"].inputs[4:]]
    events["on_load"].fn({"chosen": "mallory"}, arrived, FIRST, None, *rest)
    assert holder.name == SECOND and holder.current.classes == model_folders.ANIMALS
