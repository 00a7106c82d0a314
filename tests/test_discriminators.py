"""Discriminators learn to tell photos from reconstructions, and the balance is the paper's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskgit_core import TokenizerTrainConfig
from maskgit_core.training.discriminators import (
    AdversarialLoss,
    Batch,
    FeatureDiscriminator,
    Pair,
    PatchDiscriminator,
    balance_of,
    joined,
    pulls_of,
)

SHAPES = [(24, 42), (40, 21)]
LABELS = torch.tensor([0, 1, 2, 0])


def patches_of(value: float) -> Batch:
    return Batch([torch.full((4, 3, 16, 16), value)], LABELS)


def maps_of(mean: float) -> Batch:
    """Maps whose first half of channels is higher than the rest by `mean`."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(4, width, side, side, generator=generator) for width, side in SHAPES]
    for view in maps:
        view[:, : view.shape[1] // 2] += mean
    return Batch(maps, LABELS)


KINDS = {
    "patches": (PatchDiscriminator, patches_of(0.8), patches_of(-0.8)),
    "features": (lambda: FeatureDiscriminator(SHAPES, 3), maps_of(1.0), maps_of(-1.0)),
}


def test_patch_discriminator_scores_patches() -> None:
    (scores,) = PatchDiscriminator()(Batch([torch.zeros(2, 3, 32, 48)], LABELS[:2]))
    assert scores.shape == (2, 1, 4, 6)


def test_feature_discriminator_scores_every_depth_and_halves_large_maps() -> None:
    scores = FeatureDiscriminator(SHAPES, 3)(maps_of(0.0))
    assert [tuple(score.shape) for score in scores] == [(4, 1, 21, 21), (4, 1, 21, 21)]


@pytest.mark.parametrize("name", KINDS)
def test_update_separates_photos_from_made(name: str) -> None:
    torch.manual_seed(0)
    build, photos, made = KINDS[name]
    adversarial = AdversarialLoss(build())
    losses = [adversarial.update([Pair(photos, made)]).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert adversarial.generator_loss(photos) < adversarial.generator_loss(made)


@pytest.mark.parametrize("name", KINDS)
def test_generator_loss_moves_the_images_and_not_the_discriminator(name: str) -> None:
    torch.manual_seed(0)
    build, photos, _ = KINDS[name]
    adversarial = AdversarialLoss(build())
    views = [(view + torch.randn_like(view)).requires_grad_() for view in photos.views]
    adversarial.generator_loss(Batch(views, photos.labels)).backward()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views)
    assert all(parameter.grad is None for parameter in adversarial.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in adversarial.discriminator.parameters())


def test_feature_discriminator_learns_which_class_an_image_is_of() -> None:
    torch.manual_seed(0)
    right, views = torch.tensor([0, 1, 0, 1]), maps_of(0.0).views
    for view in views:
        view[1::2, : view.shape[1] // 2] += 2
    adversarial = AdversarialLoss(FeatureDiscriminator(SHAPES, 2))
    photos, swapped = Batch(views, right), Batch(views, 1 - right)
    losses = [adversarial.update([Pair(photos, swapped)]).item() for _ in range(60)]
    # The same images: only their classes tell them apart.
    assert losses[0] == pytest.approx(2.0, abs=0.3)
    assert losses[-1] < 0.5
    assert adversarial.generator_loss(photos) < adversarial.generator_loss(swapped)


def test_joined_losses_pull_alike_at_the_last_layer() -> None:
    first, last = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor([1.0, 1.0]))
    output = first * last
    reconstruction, adversarial = (3 * output).sum(), (0.5 * output).sum()
    pulls = pulls_of(reconstruction, adversarial, output, last)
    balance = balance_of(pulls.at_last)
    total = joined(reconstruction, adversarial, output, pulls, 0.25 * balance)
    total.backward()
    torch.testing.assert_close(balance, torch.tensor(6.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(total, reconstruction + 0.25 * 6 * adversarial, rtol=1e-4, atol=0)
    torch.testing.assert_close(last.grad, torch.full((2,), 2 * (3 + 0.25 * 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(first.grad, torch.tensor(2 * (3 + 0.25 * 3)), rtol=1e-4, atol=0)


def test_state_round_trip() -> None:
    torch.manual_seed(0)
    first, second = AdversarialLoss(PatchDiscriminator()), AdversarialLoss(PatchDiscriminator())
    photos, made = (Batch([torch.rand(2, 3, 16, 16)], LABELS[:2]) for _ in range(2))
    pairs = [Pair(photos, made)]
    first.update(pairs)
    second.load_state(copy.deepcopy(first.state()))
    assert torch.equal(first.update(pairs), second.update(pairs))
    scores = (loss.discriminator(photos) for loss in (first, second))
    torch.testing.assert_close(*scores, rtol=0, atol=0)


def test_feature_discriminator_needs_the_feature_network() -> None:
    with pytest.raises(ValueError, match="discriminator must be patches"):
        TokenizerTrainConfig(discriminator="features", adversarial_weight=0.4)
