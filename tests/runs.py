"""Tiny training runs of both stages, and how two of them are compared."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import torch

import tiny
from maskgit_core import SamplingConfig, TokenizerTrainConfig, TransformerTrainConfig
from maskgit_core.data.shards import TokenData, extract_tokens
from maskgit_core.training.tokenizer_stage import TokenizerStage
from maskgit_core.training.transformer_stage import TransformerStage

STATE, METRICS, WEIGHTS = "state.pt", "metrics.jsonl", "checkpoint"


def tokenizer_stage(config: TokenizerTrainConfig, **changes: object) -> TokenizerStage:
    return TokenizerStage(tiny.tokenizer(**changes).train(), tiny.photos(), None, config)


def transformer_stage(config: TransformerTrainConfig, **changes: object) -> TransformerStage:
    network = tiny.transformer(**changes).train()
    sampling = SamplingConfig(num_steps=2)
    return TransformerStage(network, tiny.tokenizer(), token_data(), None, config, sampling)


@functools.cache
def token_data() -> TokenData:
    return extract_tokens(tiny.tokenizer(), tiny.photos(), crops=5)


def plain_transformer_stage(config: TransformerTrainConfig) -> TransformerStage:
    return transformer_stage(config)


def dropout_transformer_stage(config: TransformerTrainConfig) -> TransformerStage:
    return transformer_stage(config, dropout=0.2)


STAGES = [tokenizer_stage, plain_transformer_stage, dropout_transformer_stage]
# Muon, weight decay, dropped tokens: all that a step can do.
_BUSY = {"matrix_learning_rate": 0.01, "weight_decay": 0.01}
BUSY_FIRST = replace(tiny.FIRST, **_BUSY)
BUSY_SECOND = replace(tiny.SECOND, **_BUSY, token_drop=0.1)


def plain(build: object) -> TokenizerTrainConfig | TransformerTrainConfig:
    """The settings of a stage of `STAGES`."""
    return tiny.FIRST if build is tokenizer_stage else tiny.SECOND


def busy(build: object) -> TokenizerTrainConfig | TransformerTrainConfig:
    return BUSY_FIRST if build is tokenizer_stage else BUSY_SECOND


def lines(folder: Path) -> list[dict[str, float]]:
    found = []
    for text in (folder / METRICS).read_text().splitlines():
        line = json.loads(text)
        for timed in ("images_per_second", "data_share"):
            line.pop(timed, None)
        found.append(line)
    return found


def assert_same_tensors(left: object, right: object, path: str = "state") -> None:
    assert type(left) is type(right), path
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert list(left) == list(right), path
        for key in left:
            assert_same_tensors(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same_tensors(a, b, f"{path}.{index}")
    else:
        assert left == right, path
