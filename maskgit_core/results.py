"""What the facade returns."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class GenerateResult:
    """Finished images.

    Attributes:
        images: float32 (B, 3, H, W) in [-1, 1].
        tokens: int64 (B, h, w), in [0, K).
    """

    images: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class InpaintResult:
    """A finished edit.

    Attributes:
        image: of the input's size; kept pixels are those of the input.
        tokens: int64 (1, h, w), in [0, K), of the edited square.
    """

    image: Image.Image
    tokens: Tensor
