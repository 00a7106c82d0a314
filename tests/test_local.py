"""Computing on this machine: batches, time, errors, pictures that come late."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import tiny
from browser_model import CLASSES, tiny_model
from demo.runs import frames
from demo.runs.compare import parse_compare
from demo.runs.edit import edit_request, repaint
from demo.runs.follow import follow
from demo.runs.redo import parse_redo
from demo.serving import steps
from demo.serving.jobs import JobFailed
from demo.serving.local import LocalRunner
from demo.serving.models import ModelHolder
from demo.serving.steps import Place
from demo.settings import RequestError
from gated_runs import VALUES, alone_on, facts, in_threads, last_of, start, wish
from maskgit_core.decoding.previews import LivePictures
from waiting import wait_for


@pytest.fixture(params=[1, 2])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_a_batch_gives_every_visitor_the_images_that_he_gets_alone(gated, threads) -> None:
    runner = LocalRunner(ModelHolder(gated))
    pixels = tiny.picture(1, (64, 48))
    mask = np.zeros((48, 64), dtype=bool)
    mask[10:30, 10:30] = True
    change = edit_request(gated, repaint(gated, pixels, mask), "rose", 2, 7, VALUES)
    requests = [wish(gated, 3), wish(gated, 90, CLASSES, 3), change, wish(gated, 4, ["rose"])]
    first = start(runner, wish(gated, 1))
    assert gated.begun.acquire(timeout=30)  # the others come while this one is decoded
    runs = [start(runner, request) for request in requests]
    wait = in_threads([first, *runs])
    gated.let(1000)
    together = wait()[1:]
    assert sorted(map(max, gated.rows)) == ([1, 1 + 3 + 2 + 1] if threads == 1 else [1, 3, 4])
    plain = tiny_model()
    for request, made in zip(requests, together, strict=True):
        own = alone_on(plain, request)
        assert facts(made.run) == facts(own.run) and made.run["result"] == own.run["result"]
        assert [image.tobytes() for image in made.images] == [x.tobytes() for x in own.images]
        assert made.run["num_steps"] == len(made.run["frames"]) == own.run["num_steps"]


def test_a_job_that_takes_too_long_ends_in_words(monkeypatch) -> None:
    model = tiny_model(pause=0.05)
    runner = LocalRunner(ModelHolder(model))
    monkeypatch.setattr(steps, "MAX_RUN_SECONDS", 0.02)
    with pytest.raises(RequestError, match="took too long"):
        list(follow(wish(model, 0), runner.decode))
    assert runner.metrics.jobs("generate", "late") == 1


def test_an_error_fails_its_batch_and_the_queue_goes_on(caplog) -> None:
    model = tiny_model()
    runner = LocalRunner(ModelHolder(model))
    whole = model.preview
    model.preview = lambda tokens: 1 / 0
    with pytest.raises(JobFailed):
        list(follow(wish(model, 0), runner.decode))
    model.preview = whole
    assert len(last_of(runner, wish(model, 0)).images) == 1
    assert "ZeroDivisionError" in caplog.text


def test_freed_memory_goes_back_between_batches_now_and_then(monkeypatch) -> None:
    model, times = tiny_model(), []
    monkeypatch.setattr("demo.serving.local.give_back_freed_memory", lambda: times.append(1))
    runner = LocalRunner(ModelHolder(model))

    def runs() -> None:
        for seed in range(3):
            last_of(runner, wish(model, seed))
        wait_for(lambda: not runner.queue.working)

    monkeypatch.setattr("demo.serving.local.TIDY_SECONDS", 1e9)
    runs()
    assert len(times) == 1
    monkeypatch.setattr("demo.serving.local.TIDY_SECONDS", 0.0)
    runner._tidy_at = 0.0
    runs()
    wait_for(lambda: len(times) == 4)


def test_other_work_takes_its_turn(tiny_model) -> None:
    runner = LocalRunner(ModelHolder(tiny_model))
    made = last_of(runner, parse_compare(tiny_model, "sea", 5, "Steps", {"num_steps": 3}))
    alone = alone_on(tiny_model, parse_compare(tiny_model, "sea", 5, "Steps", {"num_steps": 3}))
    assert facts(made.run) == facts(alone.run) and len(made.images) == 4
    run = last_of(runner, wish(tiny_model, 1)).run
    selection = {"run": run["run"], "cells": [0, 3]}
    redone = last_of(runner, parse_redo(tiny_model, run, selection, False, VALUES)).run
    kept = frames.tokens_after(redone) == frames.tokens_after(run)
    assert kept.sum() >= kept.size - 2
    assert runner.call("tour", lambda: 7) == 7
    assert list(runner.watch("tour", lambda: 8)) == [Place(0), 8]


def test_skipped_pictures_are_made_up_for_only_while_nobody_waits(gated, monkeypatch) -> None:
    monkeypatch.setattr(
        "demo.serving.local.LivePictures", lambda model: LivePictures(model, share=1e-9)
    )
    runner = LocalRunner(ModelHolder(gated))
    runs = [start(runner, wish(gated, 0))]
    assert gated.begun.acquire(timeout=30)
    runs += [start(runner, wish(gated, 1))]
    gated.let(1000)
    busy, idle = (list(run) for run in runs)
    finished = [[made.run for made in items if made.images] for items in (busy, idle)]
    # The first one's pictures would have kept the second one waiting.
    assert [len(steps) for steps in finished] == [1, 2]
    early, late = finished[1]
    assert facts(early) == facts(late) and early["result"] == late["result"]
    pictures = [[frame["src"] for frame in run["frames"]] for run in (early, late)]
    differ = [before != after for before, after in zip(*pictures, strict=True)]
    assert differ == [False, True, True, True, False]


@pytest.mark.parametrize("waits", [False, True])
def test_nor_are_those_of_a_comparison_made_while_somebody_waits(
    gated, monkeypatch, waits: bool
) -> None:
    monkeypatch.setattr(
        "demo.serving.steps.LivePictures", lambda model: LivePictures(model, share=1e-9)
    )
    runner = LocalRunner(ModelHolder(gated))
    run = start(runner, parse_compare(gated, "sea", 5, "Order", VALUES))
    assert gated.begun.acquire(timeout=30)
    other = [start(runner, wish(gated, 1))] if waits else []
    gated.let(1000)
    made = list(run)
    assert sum(bool(progress.images) for progress in made) == (1 if waits else 2)
    assert len(made[-1].images) == 4
    in_threads(other)()


def test_who_closes_at_the_result_is_done_and_has_no_more_pictures_made(gated, monkeypatch) -> None:
    begun, closed, made = threading.Event(), threading.Event(), []

    class Watched(LivePictures):
        def fill(self, seconds: float) -> Iterator:
            for some in super().fill(seconds):
                made.extend(some)
                begun.set()
                assert closed.wait(30)
                yield some

    monkeypatch.setattr("demo.serving.local.LivePictures", lambda model: Watched(model, share=1e-9))
    runner = LocalRunner(ModelHolder(gated))
    run = start(runner, wish(gated, 0, count=16))
    gated.let(1000)
    next(made for made in run if made.images)
    assert begun.wait(30)
    run.close()
    closed.set()
    wait_for(lambda: runner.num_working == 0)
    assert made == [1] and runner.metrics.jobs("generate", "done") == 1
