"""Hugging Face ZeroGPU: a GPU that is lent for the length of one decorated call.

The call runs in a forked process, so neither a computing thread nor a batch can be shared: each
request is one call of its own, and ZeroGPU keeps the queue. Outside the call the model stays on the
CPU; the fork moves its own copy to the GPU. Only the platform can show that this works: the tests
use a stand-in for its package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from demo.environment import load_spaces
from demo.serving.metrics import Metrics
from demo.serving.models import ModelHolder
from demo.serving.request import Request
from demo.serving.steps import Decoded, DecodedStep, LatePictures, Place, decoded_steps
from maskgit_core.decoding.loop import StepState

GPU_SECONDS = 60


def gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with `spaces.GPU` around it where that package is there, else as it is.

    That package must be loaded before torch: `environment.load_spaces` comes first thing.
    """
    spaces = load_spaces()
    return function if spaces is None else spaces.GPU(duration=GPU_SECONDS)(function)


def on_zero_gpu() -> bool:
    """Whether this process runs on such hardware."""
    return bool(os.environ.get("SPACES_ZERO_GPU")) and load_spaces() is not None


class ZeroGpuRunner:
    """Every request is one call on a lent GPU; see `runner.Runner`.

    Args:
        models: holds the model.
    """

    concurrency: int | None = 1
    num_waiting = num_working = 0

    def __init__(self, models: ModelHolder) -> None:
        self.models = models
        self.metrics = Metrics()  # stays empty: the jobs are not counted here

        # The request and the steps are sent between processes, so no model is among them.
        def on_gpu(request: Request) -> Iterator[Decoded]:
            for item in decoded_steps(models.current.to("cuda"), request):
                yield _on_cpu(item)

        self._on_gpu = gpu(on_gpu)

    def decode(self, request: Request) -> Iterator[Decoded]:
        """As `Runner.decode`; ZeroGPU tells no place."""
        self.models.expect(request.model)
        yield Place(0)
        yield from self._on_gpu(replace(request, base=None, start=None, plan=None))

    def call(self, kind: str, function: Callable[[], Any], *, refusable: bool = True) -> Any:
        """As `Runner.call`, in this thread and on the CPU."""
        return function()

    def watch(
        self, kind: str, function: Callable[[], Any], *, refusable: bool = True
    ) -> Iterator[Any]:
        """As `Runner.watch`, in this thread and on the CPU."""
        yield function()


def _on_cpu(item: DecodedStep | LatePictures) -> DecodedStep | LatePictures:
    """An item of which the tensors can be sent to a process without the GPU."""
    if isinstance(item, LatePictures):
        return LatePictures({number: images.cpu() for number, images in item.images.items()})
    state = {
        name: value.cpu() if isinstance(value, Tensor) else value
        for name, value in vars(item.state).items()
    }
    return replace(item, state=StepState(**state), images=item.images.cpu())
