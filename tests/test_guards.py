"""Runs that would spoil themselves or each other are stopped, sent back or refused."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from maskgit_core.devices import malloc
from maskgit_core.training.guards import (
    LOCK_FILE,
    MAX_ROLLBACKS,
    WARM_STEPS,
    LossGuard,
    run_lock,
    stop_on_signal,
)
from maskgit_core.training.loop import train
from runs import METRICS, STATE, lines, plain, tokenizer_stage, transformer_stage


def spoil(stage, when):
    """Multiply the loss of a step by when(step)."""
    real = stage.loss

    def loss(step, part):
        value, measures = real(step, part)
        return value * when(step), {name: m * when(step) for name, m in measures.items()}

    stage.loss = loss
    return stage


@pytest.mark.parametrize("build", [transformer_stage, tokenizer_stage])
@pytest.mark.parametrize(("bad", "back"), [(3, 0), (8, 5)])
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_not_taken(build, bad, back, factor, tmp_path, caplog):
    left, reported, config = [factor], [], plain(build)
    stage = spoil(build(config), lambda step: left.pop() if step == bad and left else 1.0)

    def report(step, measures):
        reported.append((step, measures.get("rollback")))

    assert train(stage, config, tmp_path, report=report) == 12
    assert (back, 1) in reported
    logged = [json.loads(text) for text in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == list(range(1, 13))
    (event,) = [line for line in logged if "rollback" in line]
    assert (event["step"], event["from_step"], event["rate_scale"]) == (back, bad + 1, 0.5)
    planned = dict(rates(build, tmp_path / "plain"))
    for line in logged:
        if "rate" in line:
            scale = 0.5 if line["step"] > back else 1.0
            assert line["rate"] == pytest.approx(scale * planned[line["step"]])
    assert f"step {bad + 1} was not taken" in caplog.text
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert state["guard"]["rollbacks"] == 1


def rates(build, folder):
    config = plain(build)
    train(build(config), config, folder)
    return [(line["step"], line["rate"]) for line in lines(folder)]


def test_a_run_that_cannot_be_saved_from_itself_ends(tmp_path):
    stage = spoil(transformer_stage(tiny.SECOND), lambda step: math.nan if step > 6 else 1.0)
    with pytest.raises(ValueError, match="learning_rate is too high: at step 8 the loss is nan"):
        train(stage, tiny.SECOND, tmp_path)
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert state["step"] == 5
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    events = [json.loads(text) for text in (tmp_path / METRICS).read_text().splitlines()]
    assert [e["rollback"] for e in events if "rollback" in e] == list(range(1, MAX_ROLLBACKS + 1))


def test_a_loss_that_explodes_sends_the_run_back(tmp_path):
    config = replace(tiny.SECOND, max_steps=WARM_STEPS + 4, sample_every=100, save_every=10)
    left = [30.0]
    stage = spoil(
        transformer_stage(config), lambda step: left.pop() if step > WARM_STEPS and left else 1.0
    )
    train(stage, config, tmp_path)
    events = [json.loads(text) for text in (tmp_path / METRICS).read_text().splitlines()]
    assert [e["step"] for e in events if "rollback" in e] == [20]
    # The same with no limit goes on.
    config, left[:] = replace(config, explode_factor=0.0), [30.0]
    stage = spoil(
        transformer_stage(config), lambda step: left.pop() if step > WARM_STEPS and left else 1.0
    )
    train(stage, config, tmp_path / "free")
    assert not any("rollback" in line for line in lines(tmp_path / "free"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.5, 2.0), min_size=WARM_STEPS, max_size=80), st.floats(1.5, 9.0))
def test_only_what_is_far_above_the_mean_is_an_explosion(course, factor):
    guard = LossGuard(factor)
    for loss in course[:WARM_STEPS]:
        assert guard.complaint(loss, loss, 1.0) is None
    for loss in course[WARM_STEPS:]:
        mean = guard.mean
        complained = guard.complaint(loss, loss, 1.0) is not None
        assert complained == (loss > factor * mean)
        assert not complained or guard.mean == mean
    assert 0.5 <= guard.mean <= 2.0
    other = LossGuard(factor)
    other.load_state(guard.state())
    assert other.state() == guard.state()


def test_a_run_of_an_older_version_is_refused_in_words(tmp_path):
    train(transformer_stage(tiny.SECOND), tiny.SECOND, tmp_path, max_seconds=0)
    state = torch.load(tmp_path / STATE, weights_only=True)
    del state["format"], state["guard"]
    torch.save(state, tmp_path / STATE)
    with pytest.raises(ValueError, match="begun by an older version"):
        train(transformer_stage(tiny.SECOND), tiny.SECOND, tmp_path)


def test_two_runs_into_one_folder_are_refused(tmp_path):
    def second(step, measures):
        if step == 2:
            with pytest.raises(ValueError, match=f"process {os.getpid()} trains into"):
                train(transformer_stage(tiny.SECOND), tiny.SECOND, tmp_path)

    assert (
        train(
            transformer_stage(tiny.SECOND),
            tiny.SECOND,
            tmp_path,
            report=second,
        )
        == 12
    )
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_lock_that_a_dead_process_left_means_nothing(tmp_path):
    (tmp_path / LOCK_FILE).write_text("4194304")
    with run_lock(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == str(os.getpid())


def test_a_signal_that_comes_twice_still_leaves_time_to_save():
    with stop_on_signal(again=False) as stopping:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.wait(5)


def course(tmp_path, name, changes, **network):
    config = replace(tiny.SECOND, max_steps=3, **changes)
    train(transformer_stage(config, **network), config, tmp_path / name)
    return [line["loss"] for line in lines(tmp_path / name)]


@pytest.mark.parametrize("kind", ["class_token", "adaln"])
def test_blocks_that_are_computed_again_give_the_same(tmp_path, kind):
    network = {"kind": kind, "dropout": 0.2}
    kept = course(tmp_path, "kept", {}, **network)
    again = course(tmp_path, "again", {"checkpoint_blocks": True}, **network)
    assert kept == pytest.approx(again, abs=1e-5)
    assert kept[0] != kept[-1]


def test_compiled_blocks_give_the_same(tmp_path, monkeypatch):
    compiled, real = [], torch.nn.Module.compile

    def compile_without_compiler(self):
        compiled.append(self)
        real(self, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_without_compiler)
    plain = course(tmp_path, "plain", {}, depth=2)
    assert not compiled
    again = course(tmp_path, "compiled", {"compile": True}, depth=2)
    assert again == pytest.approx(plain, abs=1e-4)
    assert len(compiled) == 2


def test_parts_one_after_another_add_up(tmp_path):
    whole = course(tmp_path, "whole", {})
    parts = course(tmp_path, "parts", {"grad_accum_steps": 3})
    assert whole == pytest.approx(parts, abs=1e-4)
    config = replace(tiny.SECOND, grad_accum_steps=5)
    with pytest.raises(ValueError, match="batch_size must be at least 5, for 1 processes"):
        train(transformer_stage(config), config, tmp_path / "none")


def test_freed_memory_is_kept_during_a_run_only(tmp_path, monkeypatch):
    settings: dict[int, int] = {}
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=keep))

    def keep(name, value):
        settings[name] = value
        return 1

    def seen(step, measures):
        assert settings[malloc.M_TRIM_THRESHOLD] == malloc.LARGEST_TRIM

    config = replace(tiny.SECOND, max_steps=1)
    train(transformer_stage(config), config, tmp_path, report=seen)
    assert settings[malloc.M_TRIM_THRESHOLD] == malloc.KEPT_BYTES
    # Other C libraries have no such call.
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: SimpleNamespace())
    assert train(transformer_stage(config), config, tmp_path / "other") == 1
