"""Who computes: what the page asks of it, and which one this machine has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from demo.serving.local import LocalRunner
from demo.serving.metrics import Metrics
from demo.serving.models import ModelHolder
from demo.serving.request import Request
from demo.serving.steps import Decoded
from demo.serving.zero_gpu import ZeroGpuRunner, on_zero_gpu


class Runner(Protocol):
    """Computes what visitors ask for.

    Attributes:
        concurrency: how many of the page's events may wait here at once; None is all.
    """

    concurrency: int | None

    @property
    def num_waiting(self) -> int:
        """Jobs in the queue."""
        ...

    @property
    def num_working(self) -> int:
        """Jobs that are computed now."""
        ...

    @property
    def metrics(self) -> Metrics:
        """Counters of the jobs that have ended."""
        ...

    def decode(self, request: Request) -> Iterator[Decoded]:
        """Take a request and yield what comes of it.

        That is `Place(0)`, the place now and then while it waits, the steps, and late pictures. To
        close the generator is to leave.

        Raises:
            RequestError: it cannot be taken (at the call), takes too long, or is for another model
                than the one in use.
            JobFailed: an unexpected error; it is in the log.
        """
        ...

    def watch(
        self, kind: str, function: Callable[[], Any], *, refusable: bool = True
    ) -> Iterator[Any]:
        """Yield a `Place` now and then while a function waits for its turn, then its result.

        Args:
            kind: for the log.
            function: what to compute; it is alone with the model.
            refusable: whether it may be refused where too many wait.

        Raises:
            RequestError: too many are waiting, or what the function raises.
            JobFailed: an unexpected error; it is in the log.
        """
        ...

    def call(self, kind: str, function: Callable[[], Any], *, refusable: bool = True) -> Any:
        """Return a function's result; as `watch`."""
        ...

    def close(self) -> None:
        """End all jobs, each with a sentence for its visitor, and take no more."""
        ...


def make_runner(models: ModelHolder) -> Runner:
    """What computes on this machine.

    The environment variable MASKGIT_BATCHING=0 decodes every job alone, to compare.
    """
    if on_zero_gpu():
        return ZeroGpuRunner(models)
    return LocalRunner(models, batching=os.environ.get("MASKGIT_BATCHING", "1") != "0")
