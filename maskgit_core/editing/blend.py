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
    pixels = np.array(image)
    for channel, smooth in enumerate(_smooth_fill(pixels, ~hidden)):
        grown = Image.fromarray(smooth).resize(image.size, Image.Resampling.BILINEAR)
        pixels[..., channel][hidden] = np.asarray(grown)[hidden].round().clip(0, 255)
    return Image.fromarray(pixels)


def _smooth_fill(pixels: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return the fill of uint8 (H, W, 3) as float32 (3, h, w), at most `_FILL_SIDE` a side.

    Each pixel is the mean of the visible ones that it covers, weighted by the area of each. All in
    floating point: with shares of 8 bits, a pixel that is almost hidden loses its colour.
    """
    height, width = visible.shape
    scale = min(1.0, _FILL_SIDE / max(width, height))
    across = _coverage(max(1, round(width * scale)), width)
    rows = []
    for weights in _coverage(max(1, round(height * scale)), height):
        covered = np.flatnonzero(weights)
        part = slice(covered[0], covered[-1] + 1)  # few rows as floats at a time
        seen = visible[part, :, None]
        values = np.concatenate([pixels[part] * seen, seen], axis=-1, dtype=np.float32)
        rows.append(np.tensordot(weights[part].astype(np.float32), values, 1))
    sums = np.einsum("vw,rwc->crv", across, np.stack(rows), optimize=True)  # (4, h, w)
    share = sums[3:]
    means = torch.from_numpy(sums[:3] / np.maximum(share, 1e-12)).float()
    return extrapolate(means[None], torch.from_numpy(share > 1e-6)[None].float())[0].numpy()


def _coverage(small: int, large: int) -> np.ndarray:
    """Return float64 (small, large): how much of each large pixel lies in each small one."""
    edges = np.arange(small + 1) * large / small
    pixels = np.arange(large)
    ends = np.minimum(edges[1:, None], pixels + 1)
    return (ends - np.maximum(edges[:-1, None], pixels)).clip(0)


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
