"""The critics learn to tell photos from reconstructions, and their balance follows the paper."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from maskgit_core.config import TrainConfig
from maskgit_core.training.adversarial import AdversarialLoss
from maskgit_core.training.discriminators import Batch, FeatureCritic, PatchCritic

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


CRITICS = {
    "patches": (PatchCritic, patches_of(0.8), patches_of(-0.8)),
    "features": (lambda: FeatureCritic(SHAPES, 3), maps_of(1.0), maps_of(-1.0)),
}


def test_patch_critic_scores_patches() -> None:
    (scores,) = PatchCritic()(Batch([torch.zeros(2, 3, 32, 48)], LABELS[:2]))
    assert scores.shape == (2, 1, 4, 6)


def test_feature_critic_scores_every_depth_and_halves_large_maps() -> None:
    scores = FeatureCritic(SHAPES, 3)(maps_of(0.0))
    assert [tuple(score.shape) for score in scores] == [(4, 1, 21, 21), (4, 1, 21, 21)]


@pytest.mark.parametrize("name", CRITICS)
def test_update_separates_photos_from_made(name: str) -> None:
    torch.manual_seed(0)
    build, photos, made = CRITICS[name]
    adversarial = AdversarialLoss(build())
    losses = [adversarial.update([(photos, made, 1.0)]).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert adversarial.generator_loss(photos) < adversarial.generator_loss(made)


@pytest.mark.parametrize("name", CRITICS)
def test_generator_loss_moves_the_images_and_not_the_critic(name: str) -> None:
    build, photos, _ = CRITICS[name]
    adversarial = AdversarialLoss(build())
    views = [(view + torch.randn_like(view)).requires_grad_() for view in photos.views]
    adversarial.generator_loss(Batch(views, photos.labels)).backward()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views)
    assert all(parameter.grad is None for parameter in adversarial.critic.parameters())
    assert all(parameter.requires_grad for parameter in adversarial.critic.parameters())


def test_feature_critic_learns_which_class_an_image_is_of() -> None:
    torch.manual_seed(0)
    right, views = torch.tensor([0, 1, 0, 1]), maps_of(0.0).views
    for view in views:
        view[1::2, : view.shape[1] // 2] += 2
    adversarial = AdversarialLoss(FeatureCritic(SHAPES, 2))
    photos, swapped = Batch(views, right), Batch(views, 1 - right)
    losses = [adversarial.update([(photos, swapped, 1.0)]).item() for _ in range(60)]
    # The same images: only their classes tell them apart.
    assert losses[0] == pytest.approx(2.0, abs=0.3)
    assert losses[-1] < 0.5
    assert adversarial.generator_loss(photos) < adversarial.generator_loss(swapped)


def test_joined_losses_pull_alike_at_the_last_layer() -> None:
    first, last = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor([1.0, 1.0]))
    output = first * last
    reconstruction, adversarial = (3 * output).sum(), (0.5 * output).sum()
    joined, balance = AdversarialLoss.join(reconstruction, adversarial, output, last, 0.25)
    joined.backward()
    torch.testing.assert_close(balance, torch.tensor(6.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(joined, reconstruction + 0.25 * 6 * adversarial, rtol=1e-4, atol=0)
    torch.testing.assert_close(last.grad, torch.full((2,), 2 * (3 + 0.25 * 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(first.grad, torch.tensor(2 * (3 + 0.25 * 3)), rtol=1e-4, atol=0)


def test_state_round_trip() -> None:
    torch.manual_seed(0)
    first, second = AdversarialLoss(PatchCritic()), AdversarialLoss(PatchCritic())
    photos, made = (Batch([torch.rand(2, 3, 16, 16)], LABELS[:2]) for _ in range(2))
    pairs = [(photos, made, 1.0)]
    first.update(pairs)
    second.load_state(copy.deepcopy(first.state()))
    assert torch.equal(first.update(pairs), second.update(pairs))
    torch.testing.assert_close(first.critic(photos), second.critic(photos), rtol=0, atol=0)


def test_feature_critic_needs_the_feature_network() -> None:
    with pytest.raises(ValueError, match="critic must be patches where perceptual_weight is 0"):
        TrainConfig(critic="features", adversarial_weight=0.4)
