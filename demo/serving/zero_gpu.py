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
from demo.serving.steps import Decoded, DecodedStep, LatePictures, Place, changed, decoded_steps
from maskgit_core.pixels import from_uint8, to_uint8

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
                yield _packed(item)

        self._on_gpu = gpu(on_gpu)

    def decode(self, request: Request) -> Iterator[Decoded]:
        """As `Runner.decode`; ZeroGPU tells no place."""
        self.models.expect(request.model)
        return self._decoded(request)

    def _decoded(self, request: Request) -> Iterator[Decoded]:
        yield Place(0)
        for item in self._on_gpu(replace(request, base=None, start=None, plan=None)):
            yield _unpacked(item)

    def close(self) -> None:
        """As `Runner.close`; each run ends with its own call."""

    def call(self, kind: str, function: Callable[[], Any], *, refusable: bool = True) -> Any:
        """As `Runner.call`, in this thread and on the CPU."""
        return function()

    def watch(
        self, kind: str, function: Callable[[], Any], *, refusable: bool = True
    ) -> Iterator[Any]:
        """As `Runner.watch`, in this thread and on the CPU."""
        yield function()


def _packed(item: DecodedStep | LatePictures) -> DecodedStep | LatePictures:
    """An item as it is sent between processes: off the GPU, pictures for the eye as bytes."""
    if isinstance(item, LatePictures):
        return LatePictures(
            {number: to_uint8(images.cpu()) for number, images in item.images.items()}
        )
    images = item.images.cpu() if item.last else to_uint8(item.images.cpu())
    return replace(item, state=changed(item.state, Tensor.cpu), images=images)


def _unpacked(item: DecodedStep | LatePictures) -> DecodedStep | LatePictures:
    if isinstance(item, LatePictures):
        return LatePictures({number: from_uint8(images) for number, images in item.images.items()})
    return item if item.last else replace(item, images=from_uint8(item.images))
