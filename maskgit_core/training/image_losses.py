"""The tokenizer's losses that look at images: pixels, features, and what a discriminator says."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.data.photos import step_generator
from maskgit_core.distributed.group import broadcast_
from maskgit_core.losses import DEEP_FEATURE_BLOCKS, FEATURE_BLOCKS, PerceptualLoss
from maskgit_core.training.discriminators import (
    AdversarialLoss,
    Batch,
    FeatureDiscriminator,
    PatchDiscriminator,
)
from maskgit_core.training.settings import TokenizerTrainConfig

FIRST_JUDGED = 1  # feature map for the discriminator; the one before has hardly more than pixels
WINDOW_SHARE = 0.75  # of an image's side, enlarged for the feature network


class ImageLoss(NamedTuple):
    """What the losses say of some images.

    Attributes:
        reconstruction: float32 (), the weighted sum of all but the adversarial loss.
        adversarial: float32 (), of all that was made; None where there is no discriminator yet.
        photos, judged: what the discriminator is shown.
        measures: float32 () each, the parts of the sum.
    """

    reconstruction: Tensor
    adversarial: Tensor | None
    photos: Batch
    judged: Batch
    measures: dict[str, Tensor]


class ImageLosses:
    """Pixel, perceptual and adversarial loss.

    Args:
        config: their weights.
        image_size: pixels a side.
        num_classes: how many labels there are.
        device: where the images are.

    Raises:
        ValueError: a feature network is needed and not installed.
    """

    def __init__(
        self, config: TokenizerTrainConfig, image_size: int, num_classes: int, device: torch.device
    ) -> None:
        self.config, self.size, self.device = config, image_size, device
        self.perceptual: PerceptualLoss | None = None
        if config.perceptual_weight:
            enlarged = config.perceptual_scale > 1
            self.perceptual = PerceptualLoss(DEEP_FEATURE_BLOCKS if enlarged else FEATURE_BLOCKS)
            self.perceptual.to(device)
        self.adversarial: AdversarialLoss | None = None
        if config.adversarial_weight:
            self.adversarial = AdversarialLoss(self._build_discriminator(num_classes), device)
            broadcast_(self.adversarial.discriminator.parameters())

    def _build_discriminator(self, num_classes: int) -> nn.Module:
        if self.config.discriminator == "patches":
            return PatchDiscriminator()
        blank = torch.zeros(1, 3, self.size, self.size, device=self.device)
        assert self.perceptual is not None  # `TokenizerTrainConfig` asks for it
        with torch.no_grad():
            maps = self.perceptual.features(*self.seen(0, blank))
        shapes = [(view.shape[1], view.shape[2]) for view in maps[FIRST_JUDGED:]]
        return FeatureDiscriminator(shapes, num_classes)

    def judging(self, step: int) -> bool:
        """Whether the discriminator has a say."""
        return self.adversarial is not None and step >= self.config.adversarial_start

    def of(
        self, step: int, images: Tensor, labels: Tensor, made: Tensor, more: Tensor
    ) -> ImageLoss:
        """Return the losses of some images; changes nothing.

        Args:
            step: 0-based.
            images: float32 (B, 3, H, W) in [-1, 1], photos.
            labels: int64 (B,), their classes.
            made: float32 (B + S, 3, H, W), reconstructions of the photos and S other images, which
                the discriminator alone is shown.
            more: int64 (S,), their classes.
        """
        config, output = self.config, made[: len(images)]
        measures = {"l1": (output - images).abs().mean(), "l2": (output - images).square().mean()}
        total = config.l1_weight * measures["l1"] + config.l2_weight * measures["l2"]
        views, real = [made], [images]
        if self.perceptual is not None:
            maps, targets = self._features(self.perceptual, step, made, images)
            pairs = [view[: len(images)] for view in maps]
            measures["perceptual"] = self.perceptual.distance(pairs, targets).mean()
            total = total + config.perceptual_weight * measures["perceptual"]
            if config.discriminator == "features":
                views, real = maps[FIRST_JUDGED:], targets[FIRST_JUDGED:]
        photos = Batch(real, labels.to(self.device))
        judged = Batch(views, torch.cat([labels, more]).to(self.device))
        adversarial = None
        if self.adversarial is not None and self.judging(step):
            adversarial = measures["adversarial"] = self.adversarial.generator_loss(judged)
        return ImageLoss(total, adversarial, photos, judged, measures)

    def _features(
        self, perceptual: PerceptualLoss, step: int, made: Tensor, images: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the feature maps of what was made and, without gradient, of the photos."""
        made, real = self.seen(step, made, images)
        with torch.no_grad():
            targets = perceptual.features(real)
        return perceptual.features(made), targets

    def seen(self, step: int, *pair: Tensor) -> list[Tensor]:
        """Return images as the feature network sees them: whole, or one window enlarged."""
        scale = self.config.perceptual_scale
        if scale == 1:
            return list(pair)
        side = round(WINDOW_SHARE * self.size)
        generator = step_generator(self.config.seed, step, stream=3)
        top, left = torch.randint(0, self.size - side + 1, (2,), generator=generator).tolist()
        windows = [images[:, :, top : top + side, left : left + side] for images in pair]
        return [
            F.interpolate(window, scale_factor=scale, mode="bicubic", align_corners=False)
            for window in windows
        ]
