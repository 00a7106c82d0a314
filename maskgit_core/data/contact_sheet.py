"""Sheets: many small pictures on one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def tile(images: Tensor, columns: int, *, gap: int = 2, background: float = 1.0) -> Image.Image:
    """Return one RGB picture with the images side by side, row by row.

    Args:
        images: float32 (B, 3, H, W) in [-1, 1]; values outside are clamped.
        columns: images a row.
        gap: pixels between two images.
        background: value of the gaps, in [-1, 1].
    """
    padding = (0, -len(images) % columns)
    images = F.pad(images.float().clamp(-1, 1), (0, gap, 0, gap), value=background)
    images = F.pad(images, (0, 0, 0, 0, 0, 0, *padding), value=background)
    rows = images.unflatten(0, (-1, columns))  # (rows, columns, 3, H, W)
    sheet = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)[: -gap or None, : -gap or None]
    pixels = ((sheet + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.numpy())
