"""Critics of the tokenizer: networks that score photos high and reconstructions low.

Both return one score map for each view of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

PATCH_WIDTHS = (48, 96, 192)
HEAD_WIDTH = 64
LARGEST_MAP = 28  # pixels a side that a head works on; larger maps are halved first
GROUPS = 8
SLOPE = 0.2


class Batch(NamedTuple):
    """What a critic judges.

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


class PatchCritic(nn.Module):
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
        for before, width in zip(PATCH_WIDTHS, PATCH_WIDTHS[1:], strict=False):
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


class FeatureCritic(nn.Module):
    """Scores maps of a frozen feature network for a class, a small head for each depth.

    What the network learned from millions of photos need not be learned again from reconstructions,
    so a few hundred steps are worth many thousands of the other critic's.

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
    """Scores one map; its arguments are one of `FeatureCritic`'s shapes and the classes."""

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
        found = self.layers(view)
        wanted = self.classes(labels)[:, :, None, None]
        return self.score(found) + (found * wanted).sum(1, keepdim=True)
