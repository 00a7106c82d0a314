"""Smooth fills: colours of visible pixels carried on into hidden ones."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

# Longer side, in pixels, at which a fill is worked out; it is smooth, so more would not show.
_FILL_SIDE = 96
_GREY = (127, 127, 127)


def fill_hidden(image: Image.Image, hidden: np.ndarray) -> Image.Image:
    """Return an RGB image whose hidden pixels carry on the colours of the visible ones.

    Args:
        image: RGB, of W x H pixels.
        hidden: bool (H, W).

    Returns:
        A new RGB image: visible pixels as they were, hidden ones a function of the visible ones
        alone (of the mask alone, mid-grey, where nothing is visible).
    """
    if hidden.all():
        return Image.new("RGB", image.size, _GREY)
    if not hidden.any():
        return image.copy()
    fill = _smooth_fill(image, hidden).resize(image.size, Image.Resampling.BILINEAR)
    return Image.composite(fill, image, Image.fromarray(hidden))


def _smooth_fill(image: Image.Image, hidden: np.ndarray) -> Image.Image:
    # Pillow resizes RGBA with its colours weighted by alpha: hidden pixels count for nothing.
    veiled = image.copy()
    veiled.putalpha(Image.fromarray(np.where(hidden, np.uint8(0), np.uint8(255))))
    scale = min(1.0, _FILL_SIDE / max(image.size))
    small = tuple(max(1, round(side * scale)) for side in image.size)
    values = torch.from_numpy(np.array(veiled.resize(small, Image.Resampling.BOX)))
    values = values.permute(2, 0, 1)[None].float()
    smooth = extrapolate(values[:, :3], (values[:, 3:] > 0).float())
    levels = smooth.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).contiguous()
    return Image.fromarray(levels.numpy())


def extrapolate(values: Tensor, known: Tensor) -> Tensor:
    """Return the values with every unknown pixel filled from the known ones around it.

    Averages of known pixels are taken at half the resolution again and again until no pixel is
    unknown, and brought back up (pull-push, Gortler et al. 1996).

    Args:
        values: float32 (1, C, H, W); what it holds at unknown pixels is not looked at.
        known: float32 (1, 1, H, W), 1 where known, else 0; 1 somewhere.
    """
    is_known = known > 0
    if bool(is_known.all()) or values.shape[-1] == values.shape[-2] == 1:
        return values
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    total = F.avg_pool2d(torch.where(is_known, values, 0.0), 2, ceil_mode=True)
    coarse = extrapolate(total / share.clamp_min(1e-6), (share > 0).float())
    carried = F.interpolate(coarse, values.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(is_known, values, carried)
