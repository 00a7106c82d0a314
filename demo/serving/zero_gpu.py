"""Hugging Face ZeroGPU: a GPU that is lent for the length of one decorated call.

The call runs in a forked process, so neither a computing thread nor a batch can be shared: each
run is one call of its own, and ZeroGPU keeps the line. Outside the call the model stays on the
CPU; the fork moves its own copy to the GPU. Only the platform can show that this works: the tests
use a stand-in for its package.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

GPU_SECONDS = 60


def gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with `spaces.GPU` around it where that package is there, else as it is.

    Load that package before torch: call `load_spaces` first thing.
    """
    spaces = load_spaces()
    return function if spaces is None else spaces.GPU(duration=GPU_SECONDS)(function)


def load_spaces() -> Any | None:
    """The package `spaces`, None where it is not installed."""
    try:
        return importlib.import_module("spaces")
    except ImportError:
        return None


def on_zero_gpu() -> bool:
    """Whether this process runs on such hardware."""
    return bool(os.environ.get("SPACES_ZERO_GPU")) and load_spaces() is not None


class GpuRuns:
    """Takes the place of a `Scheduler`: every run is one call on a lent GPU.

    Args:
        models: holds the model.
        ledger: for the counters; runs are not counted, since they happen elsewhere.
    """

    concurrency: int | None = 1
    num_waiting = num_working = 0

    def __init__(self, models: Any, ledger: Any) -> None:
        self.ledger = ledger

        # Arguments and results are sent between processes, so no function and no model among them.
        def run_on_gpu(make: Callable[..., Iterator[Any]], request: Any) -> Iterator[Any]:
            yield from make(models.current.to("cuda"), request)

        self._run = gpu(run_on_gpu)

    def run(
        self, make: Callable[..., Iterator[Any]], models: Any, name: str, request: Any
    ) -> Iterator[Any]:
        """As `Scheduler.run`, also for `compare.compare_run`."""
        models.expect(name)
        return self._run(make, request)

    def close(self) -> None:
        """As `Scheduler.close`; each run ends with its own call."""

    def call(
        self, kind: str, models: Any, run: Callable[[], Any], *, refusable: bool = True
    ) -> Any:
        """As `Scheduler.call`, in this thread and on the CPU."""
        return run()

    def watch(
        self, kind: str, models: Any, run: Callable[[], Any], *, refusable: bool = True
    ) -> Iterator[Any]:
        """As `Scheduler.watch`, in this thread and on the CPU."""
        yield run()
