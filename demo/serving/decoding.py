"""What a run asks to be decoded, and what it is told meanwhile; decoding without a line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskgit_core.config import SamplingConfig
from maskgit_core.decoding.loop import StepState
from maskgit_core.decoding.previews import LivePictures

FILL_SECONDS = 10.0


@dataclass(frozen=True)
class DecodeRequest:
    """Grids to fill.

    Args:
        kind: `generate`, `edit`, `redo` or `tour`, for the log.
        tokens: int64 (B, h, w), the mask id where a cell is decided.
        labels: class index of each image, None where left open.
        config: how to decode.
        seed: image i uses seed + i.
    """

    kind: str
    tokens: Tensor
    labels: tuple[int | None, ...]
    config: SamplingConfig
    seed: int

    @property
    def seeds(self) -> list[int]:
        """One seed an image."""
        return [self.seed + i for i in range(len(self.labels))]


@dataclass(frozen=True)
class DecodedStep:
    """One step of one visitor's images.

    Args:
        state: of these images alone.
        images: float32 (B, 3, H, W) in [-1, 1], for the eye (see `live`); after the last step the
            finished images.
    """

    state: StepState
    images: Tensor

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
    """Still waiting: the place in line, from 1; 0 says no more than that the job was taken."""

    number: int


# The first item is Place(0), so that a job that was refused has told nothing before.
Decoded = Place | DecodedStep | LatePictures
Decode = Callable[[DecodeRequest], Iterator[Decoded]]


def new_grid(model: Any, labels: Sequence[int | None]) -> Tensor:
    """Grids of which every cell is masked: int64 (B, h, w)."""
    grid = (len(labels), int(model.grid_size), int(model.grid_size))
    return torch.full(grid, int(model.mask_token_id), dtype=torch.int64)


def decode_alone(model: Any) -> Decode:
    """Decoding in the thread that asks, at once."""

    def decode(request: DecodeRequest) -> Iterator[Decoded]:
        yield Place(0)
        started, pictures = time.monotonic(), LivePictures(model)
        for state in model.decode_tokens_steps(
            request.tokens, list(request.labels), request.config, request.seed
        ):
            yield DecodedStep(state, pictures.of(state.tokens))
        yield from map(LatePictures, pictures.fill(fill_seconds(started)))

    return decode


def fill_seconds(started: float) -> float:
    """How long pictures that were skipped may be decoded after a run that began then.

    The result is on the page already; this is for the player and the files to keep.
    """
    return max(1.0, min(FILL_SECONDS, time.monotonic() - started))
