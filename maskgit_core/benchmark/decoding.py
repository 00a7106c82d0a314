"""The parts of `benchmark` that draw images, or fill a hole in a photo."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit_core.benchmark.models import is_random, load_model
from maskgit_core.benchmark.timing import Case, Setup
from maskgit_core.data.images import to_image

INPAINT_STEPS = 12


def load_cases(setup: Setup) -> list[Case]:
    """Time from a checkpoint's name to a model that is ready (random weights: to build it)."""
    what = "build with random weights" if is_random(setup.name) else "from a checkpoint"
    return [setup.timed("load", what, "", lambda: load_model(setup.name))]


def forward_cases(setup: Setup) -> list[Case]:
    """One pass over all positions."""
    network = setup.model.fast_transformer()

    def case(batch: int) -> Case:
        tokens, labels = setup.masked(batch)
        return setup.timed("forward", "one pass", f"batch {batch}", lambda: network(tokens, labels))

    return [case(batch) for batch in setup.batches]


def decode_cases(setup: Setup) -> list[Case]:
    """From a class to the tokens of the first step, to all tokens, and to the image."""
    model = setup.model

    def cases(steps: int, batch: int) -> list[Case]:
        config, labels = setup.config(steps), setup.labels(batch)

        def tokens() -> Tensor:
            *_, state = model.generate_steps(labels, config, seed=0)
            return state.tokens

        calls: dict[str, Callable[[], Any]] = {
            "first step": lambda: next(model.generate_steps(labels, config, seed=0)),
            "tokens": tokens,
            "images": lambda: model.decode(tokens()),
        }
        return [
            setup.timed("decode", f"{steps} steps: {what}", f"batch {batch}", call)
            for what, call in calls.items()
        ]

    pairs = itertools.product(setup.steps, setup.batches)
    return [case for steps, batch in pairs for case in cases(steps, batch)]


def inpaint_cases(setup: Setup) -> list[Case]:
    """A photo of the model's size with a square hole of a quarter of its area."""
    model, side = setup.model, setup.model.image_size
    pixels = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    photo, hole = to_image(pixels), np.zeros((side, side), dtype=bool)
    hole[side // 4 : side // 4 + side // 2, side // 4 : side // 4 + side // 2] = True
    config = setup.config(INPAINT_STEPS)
    row = f"25 % hole, {INPAINT_STEPS} steps"
    return [
        setup.timed(
            "inpaint", row, "batch 1", lambda: model.inpaint(photo, hole, 0, config, seed=0)
        )
    ]
