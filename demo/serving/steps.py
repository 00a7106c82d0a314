"""What comes back while a request is decoded, and decoding without a queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from demo.serving.request import Request
from demo.settings import RequestError
from maskgit_core.decoding.loop import StepState
from maskgit_core.decoding.previews import LivePictures

MAX_RUN_SECONDS = 600.0  # nobody waits longer; a forgotten run must not hold the queue
FILL_SECONDS = 10.0


@dataclass(frozen=True)
class DecodedStep:
    """One step of one visitor's images.

    Args:
        state: of these images alone.
        images: float32 (B, 3, H, W) in [-1, 1], for the eye (see `previews`); after the last step
            the finished images.
        seconds: what decoding each image has taken so far, where they are decoded one by one.
    """

    state: StepState
    images: Tensor
    seconds: tuple[float, ...] = ()

    @property
    def last(self) -> bool:
        """Whether the images are finished."""
        return self.state.index + 1 == self.state.num_steps


@dataclass(frozen=True)
class LatePictures:
    """Decoded pictures of steps that went by too fast for them; they come after the last step.

    Args:
        images: float32 (B, 3, H, W) in [-1, 1], by number of the step, from 0.
    """

    images: dict[int, Tensor]


@dataclass(frozen=True)
class Place:
    """Still waiting: the place in the queue, from 1; 0 says only that the job was taken."""

    number: int


# The first item is Place(0), so that before it nothing is shown of a job that is refused.
Decoded = Place | DecodedStep | LatePictures
Decode = Callable[[Request], Iterator[Decoded]]


def new_grid(model: Any, count: int) -> Tensor:
    """Grids of which every cell is masked: int64 (count, h, w)."""
    grid = (count, int(model.grid_size), int(model.grid_size))
    return torch.full(grid, int(model.mask_token_id), dtype=torch.int64)


def check_time(started: float) -> None:
    """Raise RequestError where more than `MAX_RUN_SECONDS` have gone by since a `monotonic`."""
    if time.monotonic() - started > MAX_RUN_SECONDS:
        raise RequestError("This run took too long and was stopped. Ask for fewer images or steps.")


def fill_seconds(started: float) -> float:
    """How long pictures that were skipped may be decoded after a run that began then.

    The result is on the page already; this is for the player and the files to keep.
    """
    return max(1.0, min(FILL_SECONDS, time.monotonic() - started))


def decode_alone(model: Any) -> Decode:
    """Decoding in the thread that asks, at once."""

    def decode(request: Request) -> Iterator[Decoded]:
        yield Place(0)
        yield from decoded_steps(model, request)

    return decode


def decoded_steps(model: Any, request: Request) -> Iterator[DecodedStep | LatePictures]:
    """Decode one request.

    Raises:
        RequestError: it takes longer than `MAX_RUN_SECONDS`.
    """
    started, pictures = time.monotonic(), LivePictures(model)
    for state, seconds in _states(model, request):
        yield DecodedStep(state, pictures.of(state.tokens), seconds)
        check_time(started)
    yield from map(LatePictures, pictures.fill(fill_seconds(started)))


def _states(model: Any, request: Request) -> Iterator[tuple[StepState, tuple[float, ...]]]:
    if len(request.configs) > 1:
        yield from _in_step(model, request)
        return
    (config,) = request.configs
    steps = model.decode_tokens_steps(request.tokens, request.labels, config, request.seeds)
    for state in steps:
        yield state, ()


def _in_step(model: Any, request: Request) -> Iterator[tuple[StepState, tuple[float, ...]]]:
    """Decode each image with its own configuration, step by step; one that is done rests."""
    runs = [
        model.decode_tokens_steps(request.tokens[i : i + 1], [label], config, [seed])
        for i, (label, config, seed) in enumerate(
            zip(request.labels, request.configs, request.seeds, strict=True)
        )
    ]
    states: dict[int, StepState] = {}
    seconds = [0.0] * len(runs)
    num_steps = max(request.num_steps)
    for index in range(num_steps):
        for i, run in enumerate(runs):
            began = time.monotonic()
            state = next(run, None)
            seconds[i] += time.monotonic() - began
            if state is None:
                done = states[i]
                state = replace(done, newly_revealed=torch.zeros_like(done.newly_revealed))
            states[i] = state
        yield joined(list(states.values()), index, num_steps), tuple(seconds)


def joined(states: Sequence[StepState], index: int, num_steps: int) -> StepState:
    """Several images' states as that of one batch."""

    def all_of(name: str) -> Tensor:
        return torch.cat([getattr(state, name) for state in states])

    return StepState(index, num_steps, *map(all_of, _TENSORS))


def part_of(state: StepState, rows: slice, num_steps: int) -> StepState:
    """Some images' part of a batch's state."""
    return replace(changed(state, lambda tensor: tensor[rows]), num_steps=num_steps)


def changed(state: StepState, change: Callable[[Tensor], Tensor]) -> StepState:
    """A state with each of its tensors changed."""
    tensors = (change(getattr(state, name)) for name in _TENSORS)
    return StepState(state.index, state.num_steps, *tensors)


_TENSORS = ("tokens", "newly_revealed", "confidence", "alternative_ids", "alternative_probs")
