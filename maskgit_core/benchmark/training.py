"""The training part of `benchmark`: steps of the real loop of both stages, on random data."""

from __future__ import annotations

import contextlib
import copy
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.benchmark import Measurement

from maskgit_core.benchmark.timing import Case, Setup, measured
from maskgit_core.data.photos import Photos, packed_size
from maskgit_core.data.shards import TokenData
from maskgit_core.devices.precision import bfloat16_pays
from maskgit_core.networks.registry import trains
from maskgit_core.training.loop import Stage, train
from maskgit_core.training.presets import load_preset
from maskgit_core.training.settings import PRECISIONS, TrainConfig
from maskgit_core.training.tokenizer_stage import TokenizerStage
from maskgit_core.training.transformer_stage import TransformerStage

PRESET = "scenes-flowers-xs"
NUM_IMAGES = 64
LARGE_TRANSFORMER = 50_000_000  # parameters; above it a step takes fewer images
LARGE_BATCH = 4


def train_cases(setup: Setup) -> list[Case]:
    """A step of both stages, optimizer and EMA included; none for a published network."""
    model, device = setup.model, setup.model.device
    stages: dict[str, tuple[Callable[[TrainConfig], Stage], TrainConfig]] = {}
    if trains(model.tokenizer):
        # Without the perceptual loss, whose network is not among what the project needs, and
        # quantising from the start, as all but the first steps of a training do.
        config = replace(
            load_preset(PRESET).tokenizer_training,
            perceptual_weight=0.0,
            continuous_steps=0,
            revive_every=0,
        )
        stages["tokenizer"] = (lambda config: _tokenizer_stage(setup, config), config)
    if trains(model.transformer):
        second = load_preset(PRESET).transformer_training
        if sum(p.numel() for p in model.transformer.parameters()) > LARGE_TRANSFORMER:
            second = replace(second, batch_size=LARGE_BATCH)
        stages["transformer"] = (lambda config: _transformer_stage(setup, config), second)
    precisions = [
        name
        for name in PRECISIONS
        if name == "float32" or (name != "auto" and bfloat16_pays(device.type))
    ]

    def case(name: str, precision: str) -> Case:
        build, config = stages[name]
        config = replace(config, precision=precision)

        def measure(case: Case) -> Measurement:
            return measured(case, step_seconds(build(config), config, setup.seconds))

        return Case("train", f"{name}, a step of {config.batch_size} images", precision, measure)

    return [case(name, precision) for name in stages for precision in precisions]


class _Enough(Exception):
    """Raised by the report of a step to leave the training loop."""


def step_seconds(stage: Stage, config: TrainConfig, seconds: float) -> list[float]:
    """Return the seconds of steps of the training loop, after one to warm up, at least one."""
    ends: list[float] = []

    def report(step: int, line: dict[str, float]) -> None:
        ends.append(time.perf_counter())
        if len(ends) > 1 and ends[-1] - ends[0] >= seconds:
            raise _Enough

    rare = config.max_steps + 1
    config = replace(config, log_every=rare, sample_every=rare, save_every=rare)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_Enough):
        train(stage, config, Path(folder), report=report)
    return [end - begin for begin, end in itertools.pairwise(ends)]


def _tokenizer_stage(setup: Setup, config: Any) -> Stage:
    side = packed_size(setup.model.image_size)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (NUM_IMAGES, side, side, 3), dtype=np.uint8)
    photos = Photos(pixels, torch.zeros(NUM_IMAGES, dtype=torch.int64), ["photo"], [])
    return TokenizerStage(_trainable(setup.model.tokenizer), photos, None, config, fit_codes=False)


def _transformer_stage(setup: Setup, config: Any) -> Stage:
    model, generator = setup.model, torch.Generator().manual_seed(0)
    shape = (NUM_IMAGES, 1, model.grid_size**2)
    tokens = torch.randint(model.codebook_size, shape, generator=generator)
    data = TokenData(tokens, torch.tensor(setup.labels(NUM_IMAGES)), model.classes)
    return TransformerStage(_trainable(model.transformer), model.tokenizer, data, None, config)


def _trainable(module: torch.nn.Module) -> Any:
    return copy.deepcopy(module).train().requires_grad_(True)
