"""Between the 8-bit pixels of files and the numbers in [-1, 1] of networks, and how far two differ.

Imports nothing of this project, so that everything may import it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

PSNR_LIMIT = 100.0  # in dB, what two equal images get


def to_uint8(images: Tensor | np.ndarray) -> Tensor:
    """Return images as they are saved: uint8 (..., H, W, 3), rounded to the nearest level.

    Args:
        images: floating point (..., 3, H, W) in [-1, 1]; what lies outside is clipped.
    """
    levels = _as_tensor(images).detach().to(torch.float32).add(1)
    # In place: this is done for every picture of every step.
    levels = levels.mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return levels.movedim(-3, -1).contiguous()


def from_uint8(pixels: Tensor | np.ndarray, device: torch.device | None = None) -> Tensor:
    """Return pixels as networks see them: float32 (..., 3, H, W) in [-1, 1].

    What travels to a device are the bytes, a quarter of the floats.

    Args:
        pixels: uint8 (..., H, W, 3).
        device: of the result; None leaves it where the pixels are.
    """
    return _as_tensor(pixels).to(device).movedim(-1, -3).to(torch.float32) / 127.5 - 1


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Return float32 (B,), the peak signal-to-noise ratio in dB, at most `PSNR_LIMIT`.

    Args:
        images, targets: float32 (B, 3, H, W) in [-1, 1]; the images are clipped to it.
    """
    error = (images.clamp(-1, 1) - targets).square().mean(dim=(1, 2, 3)) / 4
    return -10 * error.clamp(min=10 ** (-PSNR_LIMIT / 10)).log10()


def _as_tensor(values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, np.ndarray):
        # torch takes neither negative strides nor, without a warning, what cannot be written to.
        return torch.from_numpy(np.require(values, requirements=["C", "W"]))
    return values
