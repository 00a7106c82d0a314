"""Discriminators of the tokenizer, and how the decoder learns from one.

A discriminator scores photos high and reconstructions low; both kinds return one score map for each
view of a batch.

Reference: VQGAN (Esser et al. 2021), Sec. 3.1 and Eq. 7.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.distributed.group import sum_

PATCH_WIDTHS = (48, 96, 192)
HEAD_WIDTH = 64
LARGEST_MAP = 28  # pixels a side that a head works on; larger maps are halved first
GROUPS = 8
SLOPE = 0.2
RATE = 4e-4
BETAS = (0.5, 0.9)
LARGEST_BALANCE = 1e3


class Batch(NamedTuple):
    """What a discriminator judges.

    Attributes:
        views: float32 (B, C, H, W) each, the images or feature maps of them.
        labels: int64 (B,), the class of each image.
    """

    views: Sequence[Tensor]
    labels: Tensor

    def detach(self) -> Batch:
        """Return the same without gradient."""
        return Batch([view.detach() for view in self.views], self.labels)

    def float(self) -> Batch:
        """Return the same in float32."""
        return Batch([view.float() for view in self.views], self.labels)

    def __add__(self, other: Batch) -> Batch:  # type: ignore[override]
        views = [torch.cat(pair) for pair in zip(self.views, other.views, strict=True)]
        return Batch(views, torch.cat([self.labels, other.labels]))


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches of the images themselves, its only view.

    Reference: PatchGAN (Isola et al. 2017). Differs: group norm in place of batch norm, so that a
    real and a made batch do not share statistics.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, PATCH_WIDTHS[0], 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
        ]
        for before, width in itertools.pairwise(PATCH_WIDTHS):
            layers += [
                nn.Conv2d(before, width, 4, stride=2, padding=1),
                nn.GroupNorm(GROUPS, width),
                nn.LeakyReLU(SLOPE),
            ]
        layers.append(nn.Conv2d(PATCH_WIDTHS[-1], 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, batch: Batch) -> list[Tensor]:
        """Map [float32 (B, 3, H, W)], in [-1, 1], to [float32 (B, 1, H / 8, W / 8)]."""
        return [self.layers(images) for images in batch.views]


class FeatureDiscriminator(nn.Module):
    """Scores maps of a frozen feature network for a class, a small head for each depth.

    What the network learned from millions of photos need not be learned again from reconstructions,
    so a few hundred steps are worth many thousands of the other kind's.

    Args:
        shapes: channels and pixels a side of the maps, in order.
        num_classes: how many labels there are.

    Reference: Projected GANs (Sauer et al. 2021), Sec. 3, and for the class cGANs with projection
    discriminator (Miyato & Koyama 2018), Eq. 4. Differs: no random projections between the depths,
    group norm in place of spectral norm, and the class has a say at every place of a map.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], num_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            FeatureHead(channels, side, num_classes) for channels, side in shapes
        )

    def forward(self, batch: Batch) -> list[Tensor]:
        """Map feature maps float32 (B, C, h, w) to scores float32 (B, 1, h, w), or half of both."""
        pairs = zip(self.heads, batch.views, strict=True)
        return [head(view, batch.labels) for head, view in pairs]


class FeatureHead(nn.Module):
    """Scores one map; its arguments are one of `FeatureDiscriminator`'s shapes and the classes."""

    def __init__(self, channels: int, side: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, channels, affine=False),
            nn.Conv2d(channels, HEAD_WIDTH, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, stride=1 + (side > LARGEST_MAP), padding=1),
            nn.GroupNorm(GROUPS, HEAD_WIDTH),
            nn.LeakyReLU(SLOPE),
        )
        self.score = nn.Conv2d(HEAD_WIDTH, 1, 1)
        self.classes = nn.Embedding(num_classes, HEAD_WIDTH)
        # As large as the weights of `score`, so that both learn alike.
        nn.init.normal_(self.classes.weight, std=(3 * HEAD_WIDTH) ** -0.5)

    def forward(self, view: Tensor, labels: Tensor) -> Tensor:
        """Map float32 (B, C, h, w) and labels int64 (B,) to float32 (B, 1, h, w), or half."""
        hidden = self.layers(view)
        of_class = self.classes(labels)[:, :, None, None]
        return self.score(hidden) + (hidden * of_class).sum(1, keepdim=True)


class Pair(NamedTuple):
    """A piece of what the discriminator learns from in a step, without gradient.

    Attributes:
        photos, made: not always as many of each.
        photo_share, made_share: of all photos and of all that was made in the step.
    """

    photos: Batch
    made: Batch
    photo_share: float = 1.0
    made_share: float = 1.0


def _mean(scores: Sequence[Tensor]) -> Tensor:
    """Return float32 (), the mean over all maps, each of which counts alike."""
    return torch.stack([score.float().mean() for score in scores]).mean()


class Pulls(NamedTuple):
    """Gradients of the two losses of a piece of a batch, reconstruction first.

    Attributes:
        at_output: float32 (B, 3, H, W) each.
        at_last: of the weight of the decoder's last layer, each.
    """

    at_output: tuple[Tensor, Tensor]
    at_last: tuple[Tensor, Tensor]


def pulls_of(
    reconstruction: Tensor, adversarial: Tensor, output: Tensor, last_weight: Tensor
) -> Pulls:
    """Return the gradients of two losses, float32 (), of `output`, what the decoder made."""
    losses = (reconstruction, adversarial)
    first, second = (torch.autograd.grad(loss, output, retain_graph=True)[0] for loss in losses)
    at_last = [
        torch.autograd.grad(output, last_weight, pull, retain_graph=True)[0]
        for pull in (first, second)
    ]
    return Pulls((first, second), (at_last[0], at_last[1]))


def balance_of(at_last: Sequence[Tensor]) -> Tensor:
    """Return float32 (), what the adversarial loss is multiplied with to pull as the other one.

    Args:
        at_last: gradients of (reconstruction, adversarial) at the weight of the decoder's last
            layer, of the whole batch: its balance is no mean of the balances of its pieces.

    Reference: VQGAN (Esser et al. 2021), Eq. 7.
    """
    reconstruction, adversarial = (gradient.norm() for gradient in at_last)
    return (reconstruction / (adversarial + 1e-6)).clamp(0, LARGEST_BALANCE).detach()


def joined(
    reconstruction: Tensor, adversarial: Tensor, output: Tensor, pulls: Pulls, factor: Tensor
) -> Tensor:
    """Return reconstruction + factor * adversarial, float32 ().

    What lies between output and losses is gone through once for each: the sum hands down the
    gradients found.
    """
    carrier = (output * (pulls.at_output[0] + factor * pulls.at_output[1])).sum()
    value = (reconstruction + factor * adversarial).detach()
    return value + carrier - carrier.detach()


class AdversarialLoss:
    """A discriminator and its optimizer.

    Args:
        discriminator: of either kind.
        device: where the images are; None is the CPU.
    """

    def __init__(self, discriminator: nn.Module, device: torch.device | None = None) -> None:
        self.discriminator: nn.Module = discriminator.to(device).to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        )
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=RATE, betas=BETAS)

    def generator_loss(self, made: Batch) -> Tensor:
        """Return float32 (), low where the discriminator takes the images for photos."""
        self.discriminator.requires_grad_(False)
        scores = self.discriminator(made)
        self.discriminator.requires_grad_(True)
        return -_mean(scores)

    def update(self, pairs: Sequence[Pair]) -> Tensor:
        """Move the discriminator one step with the hinge loss; returns this process's share.

        Args:
            pairs: those of all processes together are the batch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for photos, made, photo_share, made_share in pairs:
            scores, count = self.discriminator((photos + made).float()), len(photos.labels)
            loss = photo_share * _mean([F.relu(1 - score[:count]) for score in scores])
            loss = loss + made_share * _mean([F.relu(1 + score[count:]) for score in scores])
            loss.backward()
            total = total + loss.detach().cpu()
        for parameter in self.discriminator.parameters():
            if parameter.grad is not None:
                sum_(parameter.grad)
        self.optimizer.step()
        return total

    def state(self) -> dict[str, Any]:
        """Return what is needed to resume."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
