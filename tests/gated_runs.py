"""Runs on a model whose steps can be held, followed in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from browser_model import SlowMaskGIT, tiny_model
from demo.runs.follow import Progress, follow
from demo.runs.generate import parse_generate
from demo.serving.local import LocalRunner
from demo.serving.request import Request
from demo.serving.steps import decode_alone

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


def gated_model() -> Gated:
    """A small model whose steps are held."""
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
