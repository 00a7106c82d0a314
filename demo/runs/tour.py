"""Pictures of the guided tour, made by the model at hand from a photo of the visitor's choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from demo.runs import frames, render
from demo.serving.one_thread import in_one_thread
from demo.serving.request import Request
from maskgit_core.config import SamplingConfig
from maskgit_core.data.images import crop_to_square, flatten_alpha, to_tensor
from maskgit_core.pixels import from_uint8, psnr

SHOWN_SIDE = 288
HIDDEN_SHARE = 0.6
TOUR_STEPS = 8


def _shown(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels).resize((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BICUBIC)
    return render.data_url(image, quality=88)


def hidden_cells(grid: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """The cells of a grid (h, w) that the training example hides: bool (1, h, w)."""
    chance = torch.rand(grid, generator=torch.Generator().manual_seed(seed)).numpy()
    return (chance < HIDDEN_SHARE)[None]


def tour_request(model: Any, photo: Image.Image, *, seed: int = 0) -> Request:
    """The hidden cells of the training example, to be filled in by the model without a class.

    Args:
        model, photo, seed: as in `tour_pictures`.
    """
    square = crop_to_square(flatten_alpha(photo), int(model.image_size))
    tokens = in_one_thread(model.encode, to_tensor(square))
    masked = torch.from_numpy(hidden_cells(tuple(tokens.shape[1:]), seed))
    return Request(
        kind="tour",
        model=str(model.name),
        mask_token_id=int(model.mask_token_id),
        tokens_per_cell=int(model.tokens_per_cell),
        tokens=tokens.masked_fill(masked, int(model.mask_token_id)),
        labels=(None if model.null_label is not None else 0,),
        seeds=(seed,),
        configs=(SamplingConfig(num_steps=TOUR_STEPS, guidance_scale=1.0),),
        captions=("The hidden cells, filled in",),
        base=frames.preview_url(square),
    )


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
    images = to_tensor(square)
    tokens = in_one_thread(model.encode, images)
    back = render.to_uint8(frames.as_array(in_one_thread(model.decode, tokens)))[0]
    colours = render.token_colours(frames.as_array(in_one_thread(model.codebook_patches)))
    grid = frames.as_array(tokens)[0]
    masked = hidden_cells(grid.shape, seed)
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
        "psnr": round(psnr(from_uint8(back)[None], images).item(), 1),
        "cells": int(grid.size),
        "different": len(np.unique(grid)),
        "codes": int(model.mask_token_id),
        "share": round(100 * float(masked.mean())),
    }
