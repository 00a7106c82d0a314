"""The model in use: one at a time, switched through the menu, kept when a switch fails."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import model_folders
import tiny
from demo.runs import compare, edit, recipes
from demo.runs.example import first_result
from demo.runs.follow import follow
from demo.runs.generate import parse_generate
from demo.runs.redo import parse_redo
from demo.serving import models
from demo.serving.steps import decode_alone
from demo.settings import (
    NO_CLASS,
    PRESETS,
    RequestError,
    build_config,
    preset_of,
    presets_for,
    shown_values,
    usual_preset,
)
from demo.tabs import model_menu
from maskgit_core import CheckpointError, MaskGIT, SamplingConfig
from maskgit_core.decoding.previews import LivePictures
from maskgit_core.weights import hub
from maskgit_core.weights.known import KNOWN_WEIGHTS
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
        ("missing", "missing cannot be used: there is no Hub repository.*garden stays in use"),
        ("damaged", "damaged cannot be used: .*garden stays in use"),
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
    def fail(*_: object) -> None:
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
    entries = [models.ModelEntry(SECOND, str(folders[1]))]
    holder = models.ModelHolder(tiny.model(), entries, load=lambda *_: 1 / 0)
    with pytest.raises(RequestError, match="unexpected error. model stays in use"):
        switch(holder, SECOND)
    assert holder.current.classes == tiny.CLASSES


def test_progress_is_told_while_a_model_is_fetched(holder) -> None:
    go = threading.Event()
    holder._fetch = lambda source: (go.wait(10), Path(source))[1]
    steps = holder.fetch_watched(SECOND, every=0.01)
    assert next(steps).startswith("Preparing animals")
    go.set()
    with pytest.raises(StopIteration) as end:
        while True:
            next(steps)
    assert end.value.value == holder.fetch(SECOND)


def test_a_fixed_model_has_no_menu(tmp_path) -> None:
    holder = model_folders.holder(tmp_path, fixed=True)
    assert holder.entries == ()
    with pytest.raises(RequestError, match="Choose a model"):
        holder.fetch(SECOND)


def test_menu_names_the_embedded_model_first_then_the_known_ones(
    tmp_path, tiny_checkpoint, monkeypatch
) -> None:
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    own = tmp_path / "own"
    own.mkdir()
    entries = models.menu_entries(str(tiny_checkpoint), ("own", str(own)))
    assert [entry.name for entry in entries] == [tiny_checkpoint.name, "own", *KNOWN_WEIGHTS]
    facts = {entry.name: entry.facts() for entry in entries}
    assert facts[tiny_checkpoint.name] == "16 px, 3 classes, on this machine"
    assert facts["own"] == ""
    large = facts["imagenet-384-large"]
    assert large == "384 px, 480 M parameters, FID 2.59, about 2.2 GB to download"
    assert facts["google-256"].endswith("needs files brought by hand")
    tiny_known = KNOWN_WEIGHTS["imagenet-256-tiny"]
    converted = hub.converted_folder(tiny_known)
    converted.mkdir(parents=True)
    (converted / "config.json").write_text("{}")
    entry = next(entry for entry in entries if entry.name == "imagenet-256-tiny")
    assert entry.facts().endswith("on this machine") and not entry.download
    again = models.menu_entries(str(tiny_checkpoint), ("google-256", "google-256"))
    assert len(again) == len(entries) - 1


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
    assert model_menu.edit_classes(model) == model_folders.ANIMALS
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


def test_errors_of_the_hub_reach_the_page_as_they_are(holder) -> None:
    def offline(_: str) -> Path:
        raise CheckpointError("a.pt of the Hub repository x/y is not in the cache, and so on")

    holder._fetch = offline
    with pytest.raises(RequestError, match="is not in the cache, and so on. garden stays in use."):
        list(holder.fetch_watched(SECOND, every=0.01))
