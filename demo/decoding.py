"""What a run asks to be decoded, and what it is told meanwhile; decoding without a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskgit_core.config import SamplingConfig
from maskgit_core.sampling import StepState


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
        images: float32 (B, 3, H, W) in [-1, 1], the partial decode; after the last step the
            finished images.
    """

    state: StepState
    images: Tensor


@dataclass(frozen=True)
class Place:
    """Still waiting: the place in line, from 1; 0 says no more than that the job was taken."""

    number: int


# The first item is Place(0), so that a job that was refused has told nothing before.
Decode = Callable[[DecodeRequest], Iterator[DecodedStep | Place]]


def new_grid(model: Any, labels: Sequence[int | None]) -> Tensor:
    """Grids of which every cell is masked: int64 (B, h, w)."""
    grid = (len(labels), int(model.grid_size), int(model.grid_size))
    return torch.full(grid, int(model.mask_token_id), dtype=torch.int64)


def decode_alone(model: Any) -> Decode:
    """Decoding in the thread that asks, at once."""

    def decode(request: DecodeRequest) -> Iterator[DecodedStep | Place]:
        yield Place(0)
        for state in model.decode_tokens_steps(
            request.tokens, list(request.labels), request.config, request.seed
        ):
            yield DecodedStep(state, model.decode_partial(state.tokens))

    return decode
