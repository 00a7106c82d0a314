"""The critic learns to tell photos from reconstructions, and its balance follows the paper."""

from __future__ import annotations

import copy

import torch
from torch import nn

from maskgit_core.adversarial import AdversarialLoss, PatchCritic


def test_critic_scores_patches() -> None:
    assert PatchCritic()(torch.zeros(2, 3, 32, 48)).shape == (2, 1, 4, 6)


def test_update_separates_light_from_dark() -> None:
    torch.manual_seed(0)
    adversarial = AdversarialLoss()
    light, dark = torch.full((4, 3, 16, 16), 0.8), torch.full((4, 3, 16, 16), -0.8)
    losses = [adversarial.update([(light, dark, 1.0)]).item() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert adversarial.generator_loss(light) < adversarial.generator_loss(dark)


def test_generator_loss_moves_the_images_and_not_the_critic() -> None:
    adversarial = AdversarialLoss()
    images = torch.zeros(1, 3, 16, 16, requires_grad=True)
    adversarial.generator_loss(images).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversarial.critic.parameters())
    assert all(parameter.requires_grad for parameter in adversarial.critic.parameters())


def test_balance_is_the_ratio_of_gradients_at_the_last_layer() -> None:
    last = nn.Parameter(torch.tensor([1.0, 1.0]))
    reconstruction, adversarial = (3 * last).sum(), (0.5 * last).sum()
    balance = AdversarialLoss.balance(reconstruction, adversarial, last)
    torch.testing.assert_close(balance, torch.tensor(6.0), rtol=1e-4, atol=0)
    assert not balance.requires_grad


def test_state_round_trip() -> None:
    torch.manual_seed(0)
    first, second = AdversarialLoss(), AdversarialLoss()
    photos, made = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    pairs = [(photos, made, 1.0)]
    first.update(pairs)
    second.load_state(copy.deepcopy(first.state()))
    assert torch.equal(first.update(pairs), second.update(pairs))
    torch.testing.assert_close(first.critic(photos), second.critic(photos), rtol=0, atol=0)
