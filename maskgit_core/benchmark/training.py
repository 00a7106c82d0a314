"""The training part of `benchmark`: the real loop of both stages, on random data."""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskgit_core.benchmark.plain_decoding import plain_transformer
from maskgit_core.benchmark.plain_training import plain_training
from maskgit_core.benchmark.setup import Bench, Job
from maskgit_core.benchmark.timing import Row, spread
from maskgit_core.cli.options import TOKENIZER_DEFAULTS, TRANSFORMER_DEFAULTS
from maskgit_core.config import TrainConfig
from maskgit_core.data.photos import WHOLE, Part, Photos
from maskgit_core.data.shards import TokenData
from maskgit_core.devices.precision import bfloat16_pays
from maskgit_core.networks.registry import trains
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.training.loop import Stage, train
from maskgit_core.training.tokenizer_stage import TokenizerStage
from maskgit_core.training.transformer_stage import TransformerStage

NUM_IMAGES = 64
STEPS_A_ROUND = 2
LARGE_TRANSFORMER = 50_000_000  # parameters; above it a step takes fewer images
LARGE_BATCH = 4


class PlainTransformerStage(TransformerStage):
    """The same step in the plain way: logits and cross-entropy over all positions."""

    def loss(self, step: int, part: Part = WHOLE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy at the masked positions."""
        tokens, labels, targets, token_mask, _ = self._batch(step, part)
        logits = self.model(tokens, labels)
        wanted = targets.masked_fill(~token_mask, -100)
        smoothing = self.config.label_smoothing
        loss = F.cross_entropy(logits.transpose(1, 2), wanted, label_smoothing=smoothing)
        return loss, {}


class PlainTokenizerStage(TokenizerStage):
    """The same step in the plain way: images as they come, no measures."""

    def __init__(self, model: VQTokenizer, photos: Photos, config: TrainConfig) -> None:
        super().__init__(model, photos, None, config)
        model.to(memory_format=torch.contiguous_format)

    def loss(self, step: int, part: Part = WHOLE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of pixels and codes."""
        images, config = self._batch(step, part).contiguous(), self.config
        output, quantized = self.model(images)
        loss = config.l1_weight * F.l1_loss(output, images)
        loss = loss + config.l2_weight * F.mse_loss(output, images)
        code_loss = quantized.codebook_loss + config.commit_weight * quantized.commit_loss
        return loss + code_loss, {}


class _Enough(Exception):
    """Raised by the report of a step to leave the training loop."""


def step_seconds(stage: Stage, config: TrainConfig, num_steps: int) -> list[float]:
    """Return the seconds of `num_steps` steps of the training loop, after one to warm up."""
    ends: list[float] = []

    def report(step: int, line: dict[str, float]) -> None:
        ends.append(time.perf_counter())
        if len(ends) > num_steps:
            raise _Enough

    rare = config.max_steps + 1
    config = replace(config, log_every=rare, sample_every=rare, save_every=rare)
    with tempfile.TemporaryDirectory() as folder:
        try:
            train(stage, config, Path(folder), report=report)
        except _Enough:
            pass
    return [end - begin for begin, end in zip(ends, ends[1:], strict=False)]


def plain_seconds(stage: Stage, config: TrainConfig, num_steps: int) -> list[float]:
    """Return the seconds of `num_steps` steps of the plain loop, after one to warm up."""
    ends = []
    for _ in plain_training(lambda step: stage.loss(step, WHOLE)[0], stage.model, config):
        ends.append(time.perf_counter())
        if len(ends) > num_steps:
            break
    return [end - begin for begin, end in zip(ends, ends[1:], strict=False)]


def tokenizer_stages(bench: Bench) -> tuple[list[Stage], TrainConfig] | None:
    """Return ours and the plain stage of `train-tokenizer` on random photos.

    None for a published tokenizer.
    """
    tokenizer = bench.model.tokenizer
    if not trains(tokenizer):
        return None
    # Quantising from the start, as all but the first steps of a training do.
    config = replace(TOKENIZER_DEFAULTS, continuous_steps=0, revive_every=0)
    random = np.random.default_rng(0)
    side = bench.model.image_size + 4
    pixels = random.integers(0, 256, (NUM_IMAGES, side, side, 3), dtype=np.uint8)
    photos = Photos(pixels, torch.zeros(NUM_IMAGES, dtype=torch.int64), ["photo"], [])
    stages: list[Stage] = [
        TokenizerStage(_trainable(tokenizer), photos, None, config, fit_codes=False)
    ]
    if bench.plain is not None:
        stages.append(PlainTokenizerStage(_trainable(tokenizer), photos, config))
    return stages, config


def transformer_stages(bench: Bench) -> tuple[list[Stage], TrainConfig] | None:
    """Return ours and the plain stage of `train-transformer`; None for a published decoder."""
    model = bench.model
    if not trains(model.transformer):
        return None
    config = TRANSFORMER_DEFAULTS
    if sum(p.numel() for p in model.transformer.parameters()) > LARGE_TRANSFORMER:
        config = replace(config, batch_size=LARGE_BATCH)
    tokens = bench.finished(NUM_IMAGES).view(NUM_IMAGES, 1, -1)
    data = TokenData(tokens, torch.tensor(bench.labels(NUM_IMAGES)), model.classes)
    arguments = (model.tokenizer, data, None, config)
    stages: list[Stage] = [TransformerStage(_trainable(model.transformer), *arguments)]
    if bench.plain is not None:
        plain = _trainable(plain_transformer(model.transformer))
        stages.append(PlainTransformerStage(plain, *arguments))
    return stages, config


def train_jobs(bench: Bench) -> list[Job]:
    """Images a second of a training step, optimizer and running mean included."""

    def job(name: str) -> list[Row]:
        build = tokenizer_stages if name == "tokenizer" else transformer_stages
        found = build(bench)
        if found is None:
            return [
                Row("train", name, "images/s", None, note="published network, not trained here")
            ]
        (stage, *plain), config = found
        rounded = replace(config, precision="bf16")
        ways = {"": lambda: step_seconds(stage, config, STEPS_A_ROUND)}
        if bfloat16_pays(bench.model.device.type):
            ways[", bfloat16"] = lambda: step_seconds(stage, rounded, STEPS_A_ROUND)
        if plain:
            ways["plain"] = lambda: plain_seconds(plain[0], config, STEPS_A_ROUND)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        started = time.perf_counter()
        while len(taken[""]) < bench.repeats and (
            not taken[""] or time.perf_counter() - started < bench.limit
        ):
            for way, seconds in ways.items():
                taken[way] += seconds()
        rates = {way: spread(values).per(config.batch_size) for way, values in taken.items()}
        other = rates.pop("plain", None)
        case = f"{name}, batch {config.batch_size}"
        return [
            Row(
                "train",
                case + way,
                "images/s",
                rate,
                other,
                None if other is None else rate.median / other.median,
                note="the plain loop is float32" if way and other is not None else "",
            )
            for way, rate in rates.items()
        ]

    return [(f"train: {name}", lambda n=name: job(n)) for name in ("tokenizer", "transformer")]


def _trainable(module: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(module).train().requires_grad_(True)
