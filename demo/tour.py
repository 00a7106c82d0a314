"""Pictures of the guided tour, made by the model at hand from a photo of the visitor's choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from maskgit_core.images import crop_to_square, flatten_alpha, to_tensor

from . import handlers, render

SHOWN_SIDE = 288


def _shown(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC)
    return render.data_url(image, quality=88)


def tour_pictures(model: Any, photo: Image.Image, *, seed: int = 0) -> dict[str, Any]:
    """What the tour shows about one photo.

    Args:
        model: a `MaskGIT`.
        photo: RGB or RGBA, any size; its largest middle square is used.
        seed: of the cells that are hidden in the training example.

    Returns:
        Data URLs `photo`, `tokens` (the grid, each code in its colour), `back` (decoded again),
        `hidden` (a training example: some cells masked); `psnr` in dB, `cells`, `codes`, `share`
        (per cent hidden).
    """
    size = int(model.image_size)
    square = crop_to_square(flatten_alpha(photo), size)
    pixels = np.asarray(square)
    tokens = model.encode(to_tensor(square))
    back = render.to_uint8(handlers.as_array(model.decode(tokens)))[0]
    error = float(np.mean((back.astype(np.float64) - pixels) ** 2))
    psnr = 99.0 if error == 0 else 10 * float(np.log10(255.0**2 / error))
    colours = render.token_colours(handlers.as_array(model.codebook_patches()))
    grid = handlers.as_array(tokens)[0]
    chance = torch.rand(grid.shape, generator=torch.Generator().manual_seed(seed)).numpy()
    masked = (chance < 0.6)[None]
    return {
        "photo": _shown(pixels),
        "tokens": render.data_url(
            Image.fromarray(colours[grid]).resize(
                (SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.NEAREST
            ),
            lossless=True,
        ),
        "back": _shown(back),
        "hidden": _shown(render.draw_pattern(pixels[None], masked)[0]),
        "psnr": round(psnr, 1),
        "cells": int(grid.size),
        "different": int(len(np.unique(grid))),
        "codes": int(model.mask_token_id),
        "share": int(round(100 * float(masked.mean()))),
    }
