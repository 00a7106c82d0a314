"""Adversarial loss of the tokenizer: a critic that learns beside the decoder.

Reference: VQGAN (Esser et al. 2021), Sec. 3.1 and Eq. 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.distributed.group import sum_
from maskgit_core.training.discriminators import Batch

CRITIC_RATE = 4e-4
CRITIC_BETAS = (0.5, 0.9)
LARGEST_BALANCE = 1e3


def _mean(scores: Sequence[Tensor]) -> Tensor:
    """Return float32 (), the mean over all maps, each of which counts alike."""
    return torch.stack([score.float().mean() for score in scores]).mean()


class AdversarialLoss:
    """The critic, its optimizer, and the balance with the other losses.

    Args:
        critic: see `critics`.
        device: where the images are; None is the CPU.
    """

    def __init__(self, critic: nn.Module, device: torch.device | None = None) -> None:
        self.critic = critic.to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=CRITIC_RATE, betas=CRITIC_BETAS
        )

    def generator_loss(self, made: Batch) -> Tensor:
        """Return float32 (), low where the critic takes the images for photos."""
        self.critic.requires_grad_(False)
        scores = self.critic(made)
        self.critic.requires_grad_(True)
        return -_mean(scores)

    @staticmethod
    def join(
        reconstruction: Tensor,
        adversarial: Tensor,
        output: Tensor,
        last_weight: Tensor,
        weight: float,
    ) -> tuple[Tensor, Tensor]:
        """Return reconstruction + weight * balance * adversarial, and the balance, float32 ().

        The balance gives both losses equal gradients at the decoder's last layer. What lies between
        output and losses is gone through once for each: the sum hands down the gradients found.

        Args:
            reconstruction: float32 (), of `output`, this process's share.
            adversarial: float32 (), of `output`, this process's share.
            output: float32 (B, 3, H, W), what the decoder made.
            last_weight: of the decoder's last layer.
            weight: of the adversarial loss.

        Reference: VQGAN (Esser et al. 2021), Eq. 7.
        """
        pulls = [
            torch.autograd.grad(loss, output, retain_graph=True)[0]
            for loss in (reconstruction, adversarial)
        ]
        wanted, got = (
            sum_(torch.autograd.grad(output, last_weight, pull, retain_graph=True)[0]).norm()
            for pull in pulls
        )
        balance = (wanted / (got + 1e-6)).clamp(0, LARGEST_BALANCE).detach()
        factor = weight * balance
        carrier = (output * (pulls[0] + factor * pulls[1])).sum()
        value = (reconstruction + factor * adversarial).detach()
        return value + carrier - carrier.detach(), balance

    def update(self, pairs: Sequence[tuple[Batch, Batch, float]]) -> Tensor:
        """Move the critic one step with the hinge loss; returns this process's share, float32 ().

        Args:
            pairs: photos and what was made, not always as many, without gradient, and their share
                of the whole batch; those of all processes together are the batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for photos, made, share in pairs:
            scores, count = self.critic((photos + made).float()), len(photos.labels)
            loss = share * (
                _mean([F.relu(1 - score[:count]) for score in scores])
                + _mean([F.relu(1 + score[count:]) for score in scores])
            )
            loss.backward()
            total = total + loss.detach().cpu()
        for parameter in self.critic.parameters():
            sum_(parameter.grad)
        self.optimizer.step()
        return total

    def state(self) -> dict[str, Any]:
        """Return what is needed to resume."""
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
