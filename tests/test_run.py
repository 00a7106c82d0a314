"""Runs that are stopped, crash or meet a full disk go on as if nothing had been."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from maskgit_core import CheckpointError
from maskgit_core.data.shards import TokenData
from maskgit_core.training import tokenizer_stage as tokenizer_module
from maskgit_core.training.loop import stop_on_signal, train
from maskgit_core.training.tokenizer_stage import TokenizerStage
from maskgit_core.training.transformer_stage import TransformerStage
from maskgit_core.weights import checkpoint as checkpoint_module
from runs import (
    BUSY_FIRST,
    METRICS,
    STAGES,
    STATE,
    WEIGHTS,
    assert_same_tensors,
    busy,
    lines,
    plain,
    token_data,
    tokenizer_stage,
    transformer_stage,
)


class StopTrainingError(Exception):
    """Stands for a crash."""


def assert_same_runs(left: Path, right: Path) -> None:
    assert lines(left) == lines(right)
    states = [torch.load(folder / STATE, weights_only=True) for folder in (left, right)]
    assert_same_tensors(*states)
    for path in (left / WEIGHTS).iterdir():
        assert path.read_bytes() == (right / WEIGHTS / path.name).read_bytes(), path.name


@pytest.fixture
def revived(monkeypatch) -> list[int]:
    """How many codes each revival found dead."""
    counts, real = [], tokenizer_module.revive_dead_codes_

    def count(*args):
        dead = real(*args)
        counts.append(len(dead))
        return dead

    monkeypatch.setattr(tokenizer_module, "revive_dead_codes_", count)
    return counts


# A run goes on for one step after a signal, so these stop before, at and after the switch to
# quantisation (4 steps) and the first revival of codes (8 steps).
@pytest.mark.parametrize("signals", [[2, 4, 6, 8, 10], [3, 5, 7, 9]])
@pytest.mark.parametrize("build", STAGES)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(build, signals, tmp_path, revived):
    config = busy(build)
    assert train(build(config), config, tmp_path / "whole") == config.max_steps
    if build is tokenizer_stage:
        assert sum(revived) > 0

    def report(step: int, measures: dict[str, float]) -> None:
        if step in signals:
            os.kill(os.getpid(), signal.SIGTERM)

    ends = []
    while not ends or ends[-1] < config.max_steps:
        torch.manual_seed(len(ends))  # nothing may hang on the global random numbers
        ends.append(train(build(config), config, tmp_path / "parts", report=report))
    assert ends == [*(step + 1 for step in signals), config.max_steps]
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("build", STAGES[:2])
def test_a_run_that_crashed_ends_as_one_that_did_not(build, tmp_path):
    config = busy(build)
    train(build(config), config, tmp_path / "whole")
    crashes = [3, 8, 9]

    def report(step: int, measures: dict[str, float]) -> None:
        if crashes and step == crashes[0]:
            crashes.pop(0)
            raise StopTrainingError

    while crashes:
        with pytest.raises(StopTrainingError):
            train(build(config), config, tmp_path / "parts", report=report)
    train(build(config), config, tmp_path / "parts", report=report)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_the_discriminator_is_resumed_too(tmp_path):
    config = replace(BUSY_FIRST, adversarial_weight=0.2, adversarial_start=3, max_steps=8)

    def report(step: int, measures: dict[str, float]) -> None:
        if step in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)

    for folder, signals in (("whole", None), ("parts", report)):
        step = 0
        while step < config.max_steps:
            torch.manual_seed(
                5
            )  # the discriminator starts at random, as a command with a seed does
            stage = tokenizer_stage(config)
            step = train(stage, config, tmp_path / folder, report=signals)
    assert any("adversarial" in line for line in lines(tmp_path / "whole"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_intervals_may_change_when_a_run_goes_on(tmp_path):
    train(tokenizer_stage(BUSY_FIRST), BUSY_FIRST, tmp_path / "whole")
    other = replace(BUSY_FIRST, log_every=2, save_every=3, sample_every=4)
    train(tokenizer_stage(BUSY_FIRST), BUSY_FIRST, tmp_path / "parts", max_seconds=0)
    train(tokenizer_stage(other), other, tmp_path / "parts")
    states = [torch.load(tmp_path / f / STATE, weights_only=True) for f in ("whole", "parts")]
    assert_same_tensors(states[0]["model"], states[1]["model"])
    assert_same_tensors(states[0]["ema"], states[1]["ema"])


def test_more_steps_may_be_asked_for(tmp_path):
    short = replace(tiny.FIRST, max_steps=5)
    assert train(tokenizer_stage(short), short, tmp_path) == 5
    assert train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path) == 12
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))
    # And a finished run stays as it is.
    before = (tmp_path / STATE).read_bytes()
    assert train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path) == 12
    assert (tmp_path / STATE).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.5}, "learning_rate was 0.002, is 0.5"),
        ({"batch_size": 3, "seed": 9}, "batch_size was 4, is 3; seed was 0, is 9"),
        ({"matrix_learning_rate": 0.02}, "matrix_learning_rate was 0.0, is 0.02"),
        ({"continuous_steps": 2}, "continuous_steps was 4, is 2"),
    ],
)
def test_a_changed_setting_is_named(tmp_path, changes, message):
    train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path, max_seconds=0)
    before = (tmp_path / STATE).read_bytes(), (tmp_path / METRICS).read_bytes()
    config = replace(tiny.FIRST, **changes)
    with pytest.raises(ValueError, match=message):
        train(tokenizer_stage(config), config, tmp_path)
    assert ((tmp_path / STATE).read_bytes(), (tmp_path / METRICS).read_bytes()) == before


def test_a_changed_network_is_named(tmp_path):
    train(transformer_stage(tiny.SECOND), tiny.SECOND, tmp_path, max_seconds=0)
    with pytest.raises(ValueError, match="width was 16, is 24; depth was 2, is 3"):
        train(
            transformer_stage(tiny.SECOND, width=24, depth=3),
            tiny.SECOND,
            tmp_path,
        )


@pytest.mark.parametrize("build", STAGES[:2])
def test_weights_that_a_run_died_before_writing_are_written_when_it_goes_on(build, tmp_path):
    config = plain(build)
    train(build(config), config, tmp_path / "whole")
    stage = build(config)

    def die(ema: object, folder: Path) -> None:
        raise StopTrainingError

    stage.export = die
    short = replace(config, save_every=config.max_steps)
    with pytest.raises(StopTrainingError):
        train(stage, short, tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / STATE, weights_only=True)["step"] == config.max_steps
    assert not (tmp_path / "parts" / WEIGHTS).exists()
    for _ in range(2):  # then somebody deletes them
        assert train(build(config), config, tmp_path / "parts") == config.max_steps
        for path in (tmp_path / "whole" / WEIGHTS).iterdir():
            assert path.read_bytes() == (tmp_path / "parts" / WEIGHTS / path.name).read_bytes()
        shutil.rmtree(tmp_path / "parts" / WEIGHTS)


def test_what_a_run_was_made_from_must_stay(tmp_path):
    first, second = tiny.FIRST, tiny.SECOND
    train(tokenizer_stage(first), first, tmp_path / "first", max_seconds=0)
    photos = tiny.photos()
    photos.pixels[3, 0, 0, 0] ^= 255
    other = TokenizerStage(tiny.tokenizer().train(), photos, None, first)
    with pytest.raises(ValueError, match="fingerprint of the photos was"):
        train(other, first, tmp_path / "first")
    named = replace(tiny.photos(), classes=["forest", "lake", "été"])
    other = TokenizerStage(tiny.tokenizer().train(), named, None, first)
    with pytest.raises(ValueError, match="classes was .*'sea'.* is .*'lake'"):
        train(other, first, tmp_path / "first")

    def stage(data: TokenData, seed: int = 0) -> TransformerStage:
        network = tiny.transformer().train()
        return TransformerStage(network, tiny.tokenizer(seed), data, None, second)

    data = token_data()
    train(stage(data), second, tmp_path / "second", max_seconds=0)
    tokens = data.tokens.clone()
    tokens[-1, 0, 0] = (tokens[-1, 0, 0] + 1) % 32
    for other, message in (
        (stage(data, seed=1), "fingerprint of the tokenizer was"),
        (stage(replace(data, tokens=tokens)), "fingerprint of the tokens was"),
        (stage(replace(data, classes=["a", "b", "c"])), "classes was"),
    ):
        with pytest.raises(ValueError, match=message):
            train(other, second, tmp_path / "second")
    # Nothing was lost: what it was made from goes on.
    assert train(stage(data), second, tmp_path / "second") == second.max_steps


def test_what_killed_runs_left_half_written_is_removed(tmp_path):
    left = [".state.pt.0123abcd.part", "checkpoint/.tokenizer.safetensors.ffffffff.part"]
    (tmp_path / "checkpoint").mkdir()
    other = "another-run/.state.pt.0123abcd.part"
    (tmp_path / "another-run").mkdir()
    for name in (*left, other, "notes.part", ".mine.part"):
        (tmp_path / name).write_bytes(b"half")
    train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path, max_seconds=0)
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in (other, "notes.part", ".mine.part"))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_state_that_is_cut_short(tmp_path, share):
    train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path, max_seconds=0)
    whole = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="state.pt cannot be resumed"):
        train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path)
    assert (tmp_path / STATE).read_bytes() == whole[: int(share * len(whole))]


@pytest.mark.parametrize("content", [{}, [1], "text", {"format": 2, "step": 1, "config": {"a": 1}}])
def test_a_state_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="state.pt cannot be resumed"):
        train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path)


def test_a_torn_or_missing_log_does_not_stop_a_run(tmp_path):
    train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path, max_seconds=0)
    with (tmp_path / METRICS).open("a") as log:
        log.write('{"step": 2, "loss": 0.5}\n{"step": 3, "lo')
    longer = replace(tiny.FIRST, max_steps=3)
    train(tokenizer_stage(longer), longer, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    (tmp_path / METRICS).unlink()
    longer = replace(tiny.FIRST, max_steps=4)
    train(tokenizer_stage(longer), longer, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [4]


def full_disk(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(state: object, path: str) -> None:
    Path(path).write_bytes(b"half")
    # What torch itself raises there.
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


@pytest.mark.parametrize(
    ("where", "name", "failure"),
    [
        (torch, "save", full_disk),
        (torch, "save", half_written),
        (os, "replace", full_disk),
        (checkpoint_module, "save_file", full_disk),
        (Image.Image, "save", full_disk),
    ],
)
def test_a_full_disk_keeps_what_was_saved(tmp_path, monkeypatch, where, name, failure):
    short = replace(tiny.FIRST, max_steps=5)
    train(tokenizer_stage(short), short, tmp_path)
    weights = {p.name: p.read_bytes() for p in (tmp_path / WEIGHTS).iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(where, name, failure)
        with pytest.raises(CheckpointError, match="could not write"):
            train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / WEIGHTS).iterdir()} == weights
    assert not tiny.leftovers(tmp_path)
    # With room again, the same run goes on to its end, as if nothing had been.
    assert train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path) == 12
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))


def test_the_time_limit_stops_cleanly(tmp_path):
    assert train(tokenizer_stage(tiny.FIRST), tiny.FIRST, tmp_path, max_seconds=0) == 1
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 1


def test_signals_are_handled_once_and_given_back():
    # A shell starts background jobs with Ctrl-C ignored, and this test may run in one.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        check_signals_are_handled_once()
    finally:
        signal.signal(signal.SIGINT, inherited)


def check_signals_are_handled_once():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(5)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_training_works_in_a_thread(tmp_path):
    """Only the main thread can handle signals; another one trains without."""
    finished: list[int] = []
    config = replace(tiny.FIRST, max_steps=2)
    stage = tokenizer_stage(config)
    thread = threading.Thread(target=lambda: finished.append(train(stage, config, tmp_path)))
    thread.start()
    thread.join()
    assert finished == [2]
