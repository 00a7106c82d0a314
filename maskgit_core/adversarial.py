"""Adversarial loss of the tokenizer: a PatchGAN critic that learns beside the decoder.

Reference: VQGAN (Esser et al. 2021), Sec. 3.1 and Eq. 7; PatchGAN (Isola et al. 2017). Differs:
group norm in place of batch norm, so that a real and a made batch do not share statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.distributed import sum_

CRITIC_WIDTHS = (48, 96, 192)
CRITIC_RATE = 4e-4
CRITIC_BETAS = (0.5, 0.9)
LARGEST_BALANCE = 1e3


class PatchCritic(nn.Module):
    """Scores overlapping patches: high for photos, low for reconstructions."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, CRITIC_WIDTHS[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for before, width in zip(CRITIC_WIDTHS, CRITIC_WIDTHS[1:], strict=False):
            layers += [
                nn.Conv2d(before, width, 4, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(CRITIC_WIDTHS[-1], 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 (B, 3, H, W) in [-1, 1] to float32 (B, 1, H / 8, W / 8)."""
        return self.layers(images)


class AdversarialLoss:
    """The critic, its optimizer, and the balance with the other losses.

    Args:
        device: where the images are; None is the CPU.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.critic = PatchCritic().to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(
            self.critic.parameters(), lr=CRITIC_RATE, betas=CRITIC_BETAS
        )

    def generator_loss(self, output: Tensor) -> Tensor:
        """Return float32 (), low where the critic takes float32 (B, 3, H, W) for photos."""
        self.critic.requires_grad_(False)
        loss = -self.critic(output).mean()
        self.critic.requires_grad_(True)
        return loss

    @staticmethod
    def balance(reconstruction: Tensor, adversarial: Tensor, last_weight: Tensor) -> Tensor:
        """Return float32 (), the factor that gives both losses equal gradients at the last layer.

        Both are the shares of this process; their gradients are added up over all.

        Reference: VQGAN (Esser et al. 2021), Eq. 7.
        """
        wanted, got = (
            sum_(torch.autograd.grad(loss, last_weight, retain_graph=True)[0]).norm()
            for loss in (reconstruction, adversarial)
        )
        return (wanted / (got + 1e-6)).clamp(0, LARGEST_BALANCE).detach()

    def update(self, pairs: Sequence[tuple[Tensor, Tensor, float]]) -> Tensor:
        """Move the critic one step with the hinge loss; returns this process's share, float32 ().

        Args:
            pairs: photos and reconstructions, float32 (B, 3, H, W), with their share of the whole
                batch; those of all processes together are the batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for images, output, share in pairs:
            real, made = self.critic(torch.cat([images, output.detach()])).chunk(2)
            loss = share * (F.relu(1 - real).mean() + F.relu(1 + made).mean())
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
