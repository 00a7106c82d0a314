"""Critics of the tokenizer: networks that score photos high and reconstructions low.

Both take views of a batch, a list of float32 (B, C, H, W), and return one score map for each.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

PATCH_WIDTHS = (48, 96, 192)
HEAD_WIDTH = 64
LARGEST_MAP = 28  # pixels a side that a head works on; larger maps are halved first
GROUPS = 8
SLOPE = 0.2


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

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Map [float32 (B, 3, H, W)], in [-1, 1], to [float32 (B, 1, H / 8, W / 8)]."""
        return [self.layers(images) for images in views]


class FeatureCritic(nn.Module):
    """Scores maps of a frozen feature network, a small head for each depth.

    What the network learned from millions of photos need not be learned again from reconstructions,
    so a few hundred steps are worth many thousands of the other critic's.

    Args:
        shapes: channels and pixels a side of the maps, in order.

    Reference: Projected GANs (Sauer et al. 2021), Sec. 3. Differs: no random projections between
    the depths, and group norm in place of spectral norm.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, channels, affine=False),
                nn.Conv2d(channels, HEAD_WIDTH, 1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, stride=1 + (side > LARGEST_MAP), padding=1),
                nn.GroupNorm(GROUPS, HEAD_WIDTH),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(HEAD_WIDTH, 1, 1),
            )
            for channels, side in shapes
        )

    def forward(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Map feature maps float32 (B, C, h, w) to scores float32 (B, 1, h, w), or half of both."""
        return [head(view) for head, view in zip(self.heads, views, strict=True)]
