"""A plain training loop learns what the real one does."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from maskgit_core.data.photos import WHOLE
from maskgit_core.training.loop import train
from maskgit_core.training.optim import build_optimizer, orthogonalize
from maskgit_core.training.tokenizer_stage import TokenizerStage
from plain_decoding import plain_transformer
from plain_training import (
    PlainTokenizerStage,
    PlainTransformerStage,
    plain_orthogonalize,
    plain_training,
)
from runs import BUSY_FIRST, BUSY_SECOND, lines, token_data, transformer_stage

CONFIG = replace(BUSY_SECOND, max_steps=5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24), st.integers(1, 6), st.booleans(), st.integers(0, 999))
def test_the_quick_orthogonalisation_is_the_textbook_one(side, times, tall, seed):
    generator = torch.Generator().manual_seed(seed)
    # Of half the rank, and singular values over four orders: the worst that gradients do.
    scales = torch.logspace(-4, 0, side).unsqueeze(1)
    left = torch.randn(side, -(-side // 2), generator=generator)
    matrix = left @ torch.randn(left.shape[1], side * times, generator=generator) * scales
    matrix = matrix.T if tall else matrix
    wanted = plain_orthogonalize(matrix.double()).float()
    torch.testing.assert_close(orthogonalize(matrix), wanted, atol=2e-3, rtol=0)


def matrix_sizes(model: nn.Module) -> list[tuple[int, ...]]:
    """Shapes of what Muon updates: no share of the work may be left out of the comparison."""
    settings = {"learning_rate": 1e-3, "matrix_learning_rate": 0.02, "weight_decay": 0.0}
    groups = build_optimizer(model, **settings).param_groups
    return sorted(tuple(p.shape) for g in groups if g["orthogonal"] for p in g["params"])


def assert_same_losses(plain, config, folder):
    losses = list(plain_training(lambda step: plain.loss(step, WHOLE)[0], plain.model, config))
    wanted = [line["loss"] for line in lines(folder)]
    assert losses == pytest.approx(wanted, rel=1e-3)
    assert abs(losses[0] - losses[-1]) > 1e-3


@pytest.mark.parametrize("width", [16, 24])  # too narrow for Muon, and wide enough
@pytest.mark.parametrize("kind", ["class_token", "adaln"])
def test_the_transformer_s(tmp_path, kind, width):
    stage = transformer_stage(CONFIG, kind=kind, width=width)
    network = plain_transformer(copy.deepcopy(stage.model))
    plain = PlainTransformerStage(network, tiny.tokenizer(), token_data(), None, CONFIG)
    sizes = [matrix_sizes(model) for model in (stage.model, network)]
    assert sizes[0] == sizes[1] and bool(sizes[0]) == (width > 16)
    train(stage, CONFIG, tmp_path)
    assert_same_losses(plain, CONFIG, tmp_path)


def test_the_tokenizer_s(tmp_path):
    models = [tiny.tokenizer().train() for _ in range(2)]
    config = replace(BUSY_FIRST, max_steps=5, continuous_steps=0, revive_every=0)
    plain = PlainTokenizerStage(models[0], tiny.photos(), config)
    stage = TokenizerStage(models[1], tiny.photos(), None, config, fit_codes=False)
    train(stage, config, tmp_path)
    assert_same_losses(plain, config, tmp_path)
