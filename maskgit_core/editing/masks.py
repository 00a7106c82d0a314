"""Masks of painted pixels: their accepted forms, their bounds, and the tokens they touch."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskgit_core.config import check_range
from maskgit_core.data.images import Box
from maskgit_core.orders import GridSize, grid_shape

PixelMask = np.ndarray | Tensor | Image.Image


def as_pixel_mask(pixel_mask: PixelMask, size: tuple[int, int]) -> np.ndarray:
    """Return a mask in one of the accepted forms as bool (H, W), True = to be repainted.

    Args:
        pixel_mask: bool array or tensor (H, W), also with axes of length 1 around; numbers of 0 or
            1; numbers up to 255, above 127 = True; or a greyscale or 1-bit PIL image.
        size: (width, height) of the photo in pixels.

    Raises:
        ValueError: another kind, or another size than the photo's.
    """
    if isinstance(pixel_mask, Image.Image):
        if pixel_mask.mode not in ("1", "L", "P", "RGB"):
            raise ValueError(f"pixel_mask must be a greyscale image; got mode {pixel_mask.mode}")
        values = np.array(pixel_mask.convert("L"))
    elif isinstance(pixel_mask, Tensor):
        values = pixel_mask.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    elif isinstance(pixel_mask, np.ndarray):
        values = pixel_mask
    else:
        raise ValueError(
            f"pixel_mask must be an array, a tensor or an image; got {type(pixel_mask).__name__}"
        )
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.shape != (size[1], size[0]):
        raise ValueError(
            f"pixel_mask must be as large as the photo, {size[0]} x {size[1]} pixels "
            f"(an array of shape ({size[1]}, {size[0]})); got shape {values.shape}"
        )
    if values.dtype.kind not in "buif":
        raise ValueError(f"pixel_mask must hold bools or numbers; got {values.dtype}")
    if values.dtype == bool:
        return values.copy()
    if isinstance(pixel_mask, Image.Image) or values.max() > 1:
        return values > 127
    return values > 0.5


def drawn_mask(image: Image.Image) -> Image.Image:
    """Return a mask that was drawn in an image, as grey: what is bright, or, on transparency, what
    is opaque.

    Args:
        image: of mode RGB or RGBA, as `load_image` gives it.
    """
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] < 255:
        return image.getchannel("A")
    return image.convert("L")


def token_mask_from_pixels(
    pixel_mask: np.ndarray | Tensor, grid_size: GridSize, *, ring: int = 1
) -> Tensor:
    """Return the tokens that a painted area touches, and a ring around them.

    Args:
        pixel_mask: bool (H, W) of any size, True = to be repainted; the grid is laid over it.
        grid_size: tokens a side, or (rows, columns).
        ring: how many tokens further, diagonals included; 0 adds none.

    Returns:
        bool (h, w), True = to be predicted: every token of which any part is painted, and every
        one within `ring` of such a token.

    Raises:
        ValueError: a mask that is not bool (H, W), or a ring below 0.
    """
    rows, columns = grid_shape(grid_size)
    check_range("ring", ring, 0, whole=True)
    mask = pixel_mask.cpu().numpy() if isinstance(pixel_mask, Tensor) else pixel_mask
    if mask.dtype != bool or mask.ndim != 2 or mask.size == 0:
        raise ValueError(
            f"pixel_mask must be bool (H, W) and not empty; got {mask.dtype} {mask.shape}"
        )
    touched = _any_in_cells(_any_in_cells(mask, rows).T, columns).T
    touched = torch.from_numpy(touched.astype(np.float32))[None, None]
    return F.max_pool2d(touched, 2 * ring + 1, stride=1, padding=ring)[0, 0] > 0


def _any_in_cells(mask: np.ndarray, num_cells: int) -> np.ndarray:
    """Return bool (num_cells, W): whether any of the rows that a cell overlaps is True."""
    height = len(mask)
    bounds = [
        (cell * height // num_cells, -(-(cell + 1) * height // num_cells))
        for cell in range(num_cells)
    ]
    return np.stack([mask[start:end].any(0) for start, end in bounds])


def mask_bounds(painted: np.ndarray) -> Box:
    """Return the smallest box (left, top, right, bottom) of a mask that is not empty."""
    rows, columns = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def crop_mask(painted: np.ndarray, box: Box, *, outside: bool = True) -> np.ndarray:
    """Return the mask inside a box; where the box lies beyond the photo, `outside`."""
    left, top, right, bottom = box
    height, width = painted.shape
    inside = painted[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    cropped = np.full((bottom - top, right - left), outside)
    row, column = max(-top, 0), max(-left, 0)
    cropped[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return cropped
