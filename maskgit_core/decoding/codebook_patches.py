"""What each code of a codebook looks like, and grids whose masked cells are filled with codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit_core.pixels import from_uint8, to_uint8

PATCH_CONTEXT = 3  # a code is drawn as the middle of a 3 x 3 grid of itself
PATCH_PIXELS = 65536  # area of all codes that are decoded at most
PATCH_RIDGE = 0.1
PATCH_BATCH = 256
FIT_BATCH = 8192


def codebook_patches(model: Any) -> np.ndarray:
    """Return uint8 (K, p, p, 3): what each code shows amid codes of its own kind.

    Where decoding all would take minutes (16,384 codes of a published tokenizer), an even sample
    is decoded, and the others follow from their vectors by a linear fit.

    Args:
        model: a `MaskGIT`.
    """
    count, stride = model.codebook_size, model.image_size // model.grid_size
    decoded = min(count, max(1, PATCH_PIXELS // stride**2))
    sample = torch.arange(decoded) * count // decoded
    patches = decode_codes(model, sample)
    if decoded == count:
        return to_uint8(patches).numpy()
    ids = torch.arange(count, device=model.device).view(-1, 1, 1)
    vectors = model.tokenizer.quantizer.lookup(ids).reshape(count, -1).float().cpu()
    fitted = fit_patches(vectors[sample], patches)
    # In parts: as float32 the patches of 18 bits would have 800 MB.
    pixels = np.concatenate([to_uint8(fitted(part)).numpy() for part in vectors.split(FIT_BATCH)])
    pixels[sample.numpy()] = to_uint8(patches).numpy()
    return pixels


def decode_codes(model: Any, ids: Tensor) -> Tensor:
    """Return float32 (n, 3, p, p) in [-1, 1]: each of the codes int64 (n,), decoded."""
    stride = model.image_size // model.grid_size
    start = (PATCH_CONTEXT // 2) * stride
    parts = []
    for some in ids.split(PATCH_BATCH):
        grids = some.view(-1, 1, 1).expand(-1, PATCH_CONTEXT, PATCH_CONTEXT).contiguous()
        parts.append(model.preview(grids)[..., start : start + stride, start : start + stride])
    return torch.cat(parts)


def fit_patches(known: Tensor, patches: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what gives the patches of any codes, from those of a sample, by ridge regression.

    Args:
        known: float32 (n, D), vectors of the sample.
        patches: float32 (n, 3, p, p) in [-1, 1], what it shows.

    Returns:
        A function of vectors float32 (M, D) that returns float32 (M, 3, p, p) in [-1, 1].
    """
    targets, centre = patches.flatten(1), known.mean(0)
    inputs, average = known - centre, targets.mean(0)
    gram = inputs.T @ inputs
    # Without it a sample hardly larger than a vector would be fitted exactly, the rest wildly.
    gram.diagonal().add_(PATCH_RIDGE * gram.diagonal().mean() + 1e-8)
    slope = torch.linalg.solve(gram, inputs.T @ (targets - average))

    def fitted(vectors: Tensor) -> Tensor:
        found = ((vectors - centre) @ slope + average).clamp(-1, 1)
        return found.view(-1, *patches.shape[1:])

    return fitted


def fill_masked(tokens: Tensor, mask_token_id: int, patches: Callable[[], np.ndarray]) -> Tensor:
    """Return tokens int64 (B, h, w) with a code at every cell, for a look at unfinished images.

    A masked cell takes the code of the nearest cell that is known, so that the decoder, which
    looks around, colours the known cells as it will in the end; with no known cell at all, the
    code that lies nearest to grey.

    Args:
        tokens: in [0, K].
        mask_token_id: K.
        patches: returns what each code shows, uint8 (K, p, p, 3); asked where no cell is known.
    """
    return torch.stack([_filled(grid, mask_token_id, patches) for grid in tokens])


def _filled(grid: Tensor, mask_token_id: int, patches: Callable[[], np.ndarray]) -> Tensor:
    known = grid != mask_token_id
    if bool(known.all()):
        return grid
    if not bool(known.any()):
        parts = torch.from_numpy(patches()).split(FIT_BATCH)
        distance = torch.cat([from_uint8(part).square().mean(dim=(1, 2, 3)) for part in parts])
        return torch.full_like(grid, int(distance.argmin()))
    places = known.nonzero().float()
    holes = (~known).nonzero().float()
    nearest = torch.cdist(holes, places).argmin(1)
    filled = grid.clone()
    filled[~known] = grid[known][nearest]
    return filled
