"""The queue in front of the model: batches, bounds, leaving, time, and what is told of it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import model_folders
import tiny
from browser_model import CLASSES, SlowMaskGIT, tiny_model
from demo.runs import frames
from demo.runs.compare import parse_compare
from demo.runs.edit import edit_request, repaint
from demo.runs.follow import Progress, follow
from demo.runs.generate import parse_generate
from demo.runs.redo import parse_redo
from demo.serving import steps
from demo.serving.jobs import WAITING, Job, JobFailed
from demo.serving.local import LocalRunner
from demo.serving.metrics import FAILURES_IN_A_ROW
from demo.serving.models import ModelHolder
from demo.serving.queue import STOPPING
from demo.serving.request import Request
from demo.serving.steps import Place, decode_alone
from demo.settings import RequestError
from maskgit_core.decoding.previews import LivePictures
from waiting import wait_for

VALUES = {"num_steps": 5, "guidance_scale": 3.0}


class Gated(SlowMaskGIT):
    """Takes a step only when it is let, and notes how many rows each step of a run computed."""

    def watch(self) -> None:
        self.gate, self.begun, self.rows = threading.Semaphore(0), threading.Semaphore(0), []

    def decode_tokens_steps(self, *args, wanted=None, **kwargs) -> Iterator:
        labels = args[1]

        def asked(row: int) -> bool:
            if row == 0:
                self.begun.release()
                assert self.gate.acquire(timeout=30)
                counts.append(0)
            keep = wanted is None or wanted(row)
            counts[-1] += keep
            return keep

        assert labels
        counts: list[int] = []
        self.rows.append(counts)
        return super().decode_tokens_steps(*args, wanted=asked, **kwargs)

    def let(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.gate.release()


@pytest.fixture
def gated() -> Gated:
    model = tiny_model()
    model.__class__ = Gated
    model.watch()
    return model


def wish(model, seed: int, classes=("sea",), count: int = 1, **values) -> Request:
    return parse_generate(model, list(classes), count, seed, {**VALUES, **values})


def start(runner: LocalRunner, request: Request) -> Iterator[Progress]:
    """A run of which the head is there, so that it is in the queue."""
    run = follow(request, runner.decode)
    head = next(run)
    assert not head.images and not head.run["frames"]
    return run


def last_of(runner: LocalRunner, request: Request) -> Progress:
    return list(follow(request, runner.decode))[-1]


def alone_on(model, request: Request) -> Progress:
    return list(follow(request, decode_alone(model)))[-1]


def in_threads(runs: list) -> Callable[[], list]:
    """Follow all runs at once; returns what waits for their last items."""
    ends: list = [None] * len(runs)

    def follow(index: int) -> None:
        try:
            *_, ends[index] = runs[index]
        except Exception as error:
            ends[index] = error

    threads = [threading.Thread(target=follow, args=(i,), daemon=True) for i in range(len(runs))]
    for thread in threads:
        thread.start()

    def wait() -> list:
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        return ends

    return wait


def facts(run: dict) -> list[dict]:
    """The frames of a run without their pictures, which are for the eye: time decides on them."""
    return [
        {name: what for name, what in frame.items() if name != "src"} for frame in run["frames"]
    ]


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


def test_other_settings_and_late_comers_wait_for_the_next_batch(gated) -> None:
    runner = LocalRunner(ModelHolder(gated), max_batch_images=3)
    runs = [start(runner, wish(gated, 0))]
    assert gated.begun.acquire(timeout=30)
    for seed, values in ((1, {}), (2, {"num_steps": 2}), (3, {}), (4, {}), (5, {})):
        runs.append(start(runner, wish(gated, seed, **values)))
    wait = in_threads(runs)
    gated.let(1000)
    assert all(made.images for made in wait())
    assert gated.rows == [[1] * 5, [3] * 5, [1] * 2, [1] * 5]


def test_batching_can_be_switched_off(gated) -> None:
    runner = LocalRunner(ModelHolder(gated), batching=False)
    runs = [start(runner, wish(gated, seed)) for seed in range(3)]
    wait = in_threads(runs)
    gated.let(1000)
    wait()
    assert all(set(counts) == {1} for counts in gated.rows)


def test_one_more_than_may_wait_is_refused_in_words(gated) -> None:
    runner = LocalRunner(ModelHolder(gated), max_waiting=2)
    runs = [start(runner, wish(gated, 0))]
    assert gated.begun.acquire(timeout=30)
    runs += [start(runner, wish(gated, seed)) for seed in (1, 2)]
    with pytest.raises(RequestError, match="2 others are waiting already. Try again in a minute."):
        next(follow(wish(gated, 3), runner.decode))
    places = [made.run["waiting"] for made in (next(runs[2]), next(runs[1]))]
    assert places == [2, 1]
    runs.pop(1).close()
    assert runner.num_waiting == 1 and next(runs[1]).run["waiting"] == 1
    wait = in_threads(runs)
    gated.let(1000)
    assert all(made.images for made in wait())


def test_a_full_queue_still_takes_one_job_of_a_visitor_who_has_none(gated) -> None:
    runner = LocalRunner(ModelHolder(gated), max_waiting=2)

    def job(visitor: str) -> Job:
        return runner._join(held, "tour", "m", visitor=visitor)

    let = threading.Event()

    def held() -> int:
        return 0 * let.wait(60)

    first = job("greedy")
    while first.state == WAITING:
        time.sleep(0.01)
    taken = [job("greedy"), job("greedy"), job("other")]
    for visitor in ("greedy", "other", "third"):  # the last finds the extra places taken
        with pytest.raises(RequestError, match="waiting already"):
            job(visitor)
    let.set()
    assert [list(some.follow())[-1] for some in (first, *taken)] == [0] * 4


def test_who_leaves_is_dropped_before_the_next_step_and_the_batch_goes_on(gated) -> None:
    runner = LocalRunner(ModelHolder(gated))
    runs = [start(runner, wish(gated, 0))]
    assert gated.begun.acquire(timeout=30)
    runs += [start(runner, wish(gated, seed)) for seed in (1, 2)]
    in_threads(runs[:1])
    gated.let(5)
    for _ in range(5):  # five steps of the first run and the beginning of the next batch
        assert gated.begun.acquire(timeout=30)
    gated.let()
    assert gated.begun.acquire(timeout=30)
    for run in runs[1:]:
        while not next(run).run["frames"]:
            pass
    runs[1].close()  # between two steps
    gated.let()
    assert gated.begun.acquire(timeout=30)
    assert gated.rows[-1] == [2, 1] and runner.num_working == 1
    runs[2].close()
    gated.let()
    wait_for(lambda: runner.num_working == 0 and not runner.queue.working)
    assert gated.rows[-1] == [2, 1, 0]
    # Nobody is left, so the next visitor's turn comes at once.
    run = start(runner, wish(gated, 9))
    assert gated.begun.acquire(timeout=30)
    run.close()
    gated.let()


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


def test_a_switch_waits_for_its_turn_and_later_jobs_for_the_old_model_are_told(tmp_path) -> None:
    models = model_folders.holder(tmp_path)
    runner = LocalRunner(models)
    hold, began = threading.Event(), threading.Event()

    def busy() -> None:
        began.set()
        assert hold.wait(30)

    threading.Thread(target=runner.call, args=("tour", busy)).start()
    assert began.wait(30)
    folder = models.fetch(model_folders.SECOND)
    switch = threading.Thread(
        target=lambda: runner.call("switch", lambda: models.use("animals", folder))
    )
    switch.start()
    wait_for(lambda: runner.num_waiting == 1)
    run = start(runner, parse_generate(models.current, ["rose"], 1, 3, VALUES))
    assert models.name == model_folders.FIRST
    hold.set()
    with pytest.raises(RequestError, match="The model was changed to animals"):
        list(run)
    switch.join(30)
    assert models.name == model_folders.SECOND


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


def test_log_and_counters_tell_of_jobs_and_nothing_else(caplog) -> None:
    model = tiny_model()
    runner = LocalRunner(ModelHolder(model), max_waiting=8)
    with caplog.at_level(logging.INFO, "maskgit.jobs"):
        last_of(runner, wish(model, 5, count=2))
        start(runner, wish(model, 6)).close()
    lines = [json.loads(record.message) for record in caplog.records]
    assert [line.pop("outcome") for line in lines] == ["done", "left"]
    times = [(line.pop("ms_waiting"), line.pop("ms_working")) for line in lines]
    assert all(isinstance(ms, int) and ms >= 0 for pair in times for ms in pair)
    assert lines[0] == {
        "event": "job",
        "model": model.name,
        "kind": "generate",
        "steps": 5,
        "images": 2,
        "batch_jobs": 1,
    }
    text = runner.metrics.prometheus(waiting=3, working=1).decode()
    assert 'maskgit_jobs_total{kind="generate",outcome="done"} 1.0\n' in text
    assert 'maskgit_jobs_total{kind="generate",outcome="left"} 1.0\n' in text
    assert "maskgit_images_total 2.0\n" in text and "maskgit_jobs_waiting 3.0\n" in text
    assert "# TYPE maskgit_wait_seconds_total counter\n" in text and "_created" not in text


def test_a_run_that_nobody_listened_to_is_forgotten(gated) -> None:
    runner = LocalRunner(ModelHolder(gated))
    job = runner._join(lambda: None, "tour", "m")
    assert next(job.follow()) == Place(0)
    wait_for(lambda: job.outcome is not None)
    assert runner.num_waiting == 0


def test_a_stop_tells_everybody_and_takes_no_more(gated) -> None:
    runner = LocalRunner(ModelHolder(gated))
    runs = [start(runner, wish(gated, seed)) for seed in range(3)]
    ends = in_threads(runs)
    wait_for(lambda: runner.num_working > 0)
    runner.close()
    assert [str(end) for end in ends()] == [STOPPING] * 3
    with pytest.raises(RequestError, match="restarted"):
        runner.decode(wish(gated, 9))
    gated.let(100)


def test_failures_in_a_row_empty_the_queue_and_one_success_ends_them(gated) -> None:
    runner, let = LocalRunner(ModelHolder(gated)), threading.Event()

    def fails() -> None:
        let.wait(60)
        raise MemoryError

    failing = [runner._join(fails, "test", "m") for _ in range(FAILURES_IN_A_ROW)]
    behind = [runner._join(lambda: 1, "test", "m") for _ in range(2)]
    let.set()
    for job in failing:
        with pytest.raises(JobFailed):
            list(job.follow())
    for job in behind:
        with pytest.raises(RequestError, match="has a problem"):
            list(job.follow())
    assert runner.metrics.failing
    assert runner.call("test", lambda: 5) == 5
    assert not runner.metrics.failing
