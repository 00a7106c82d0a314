"""The queue in front of the model: bounds, turns, leaving, and what is told of it."""

from __future__ import annotations

import json
import logging
import threading
import time

import pytest

import model_folders
from browser_model import tiny_model
from demo.runs.follow import follow
from demo.runs.generate import parse_generate
from demo.serving.jobs import WAITING, Job, JobFailed
from demo.serving.local import LocalRunner
from demo.serving.metrics import FAILURES_IN_A_ROW
from demo.serving.models import ModelHolder
from demo.serving.queue import STOPPING
from demo.serving.steps import Place
from demo.settings import RequestError
from gated_runs import VALUES, in_threads, last_of, start, wish
from waiting import wait_for


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
