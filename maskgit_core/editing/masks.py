"""Masks of painted pixels: their accepted forms, their bounds, and the tokens they touch."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskgit_core.config import check_range
from maskgit_core.data.images import (
    Box,
    ImageSource,
    load_image,
    open_image,
    turn_upright,
)
from maskgit_core.orders import GridSize, grid_shape

PixelMask = np.ndarray | Tensor | Image.Image


def as_pixel_mask(pixel_mask: PixelMask, size: tuple[int, int]) -> np.ndarray:
    """Return a mask in one of the accepted forms as bool (H, W), True = to be repainted.

    Args:
        pixel_mask: bool array or tensor (H, W), also with axes of length 1 around; numbers from 0
            to 1, to 255 or to 65535, above the middle = True (which of the three, the greatest
            of them says); or a PIL image of any mode: bright = True, or, drawn on transparency,
            opaque = True.
        size: (width, height) of the photo in pixels.

    Raises:
        ValueError: another kind, another size than the photo's, or numbers that are not finite.
    """
    if isinstance(pixel_mask, Image.Image):
        values = _brightness(pixel_mask)
    elif isinstance(pixel_mask, Tensor):
        numbers = pixel_mask.detach().cpu()
        values = (numbers.float() if numbers.dtype == torch.bfloat16 else numbers).numpy()
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
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("pixel_mask must hold finite numbers; got nan or infinity")
    return values > _middle(values)


def _middle(values: np.ndarray) -> float:
    """Return half of what "to be repainted" is in a mask of numbers: 1, 255 or 65535."""
    greatest = values.max(initial=0)
    # Smooth resizing overshoots 1 by a fifth at most; no mask out of 255 is as dark as that.
    if greatest <= (1.5 if values.dtype.kind == "f" else 1):
        return 0.5
    # A mask out of 255 may overshoot as well.
    return 127.5 if greatest <= 1.5 * 255 else 32767.5


def _brightness(image: Image.Image) -> np.ndarray:
    """Return what a mask that is an image says, as numbers (H, W)."""
    has_numbers = image.mode in ("L", "I", "F") or image.mode.startswith("I;16")
    if has_numbers and not image.has_transparency_data:
        return np.array(image)
    return np.array(drawn_mask(image))


def drawn_mask(image: Image.Image) -> Image.Image:
    """Return a mask that was drawn in an image, as grey: what is bright, or, on transparency, what
    is opaque.

    Args:
        image: of any mode of 8 bits or fewer.
    """
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        alpha = image.convert("RGBA").getchannel("A")
        # A shade of transparency here and there is no background to draw on.
        if cast(tuple[int, int], alpha.getextrema())[0] < 128:
            return alpha
        image = image.convert("RGBA")
    return image.convert("RGB").convert("L") if image.mode == "LAB" else image.convert("L")


def open_with_mask(photo: ImageSource, mask: ImageSource) -> tuple[Image.Image, Image.Image]:
    """Open a photo and the mask that was drawn on it, in one frame; see `turned_to_mask`.

    Args:
        photo, mask: paths, the bytes of files, or PIL images, which are taken as they are.

    Returns:
        The photo as `load_image` gives it, with its transparency, and the mask in its own mode.

    Raises:
        ValueError: as `load_image`; it says which of the two.
    """
    stored = open_image(photo, upright=False)
    try:
        drawn = open_image(mask)
    except ValueError as error:
        raise ValueError(f"mask: {error}") from None
    seen = stored if isinstance(photo, Image.Image) else turned_to_mask(stored, drawn.size)
    return load_image(seen, keep_alpha=True), drawn


def turned_to_mask(stored: Image.Image, mask_size: tuple[int, int]) -> Image.Image:
    """Return a photo as whoever drew its mask saw it.

    Upright, as every viewer shows it. Where only the photo as it is stored has the size of the mask
    (a program wrote it that does not look at the EXIF orientation), it stays as it is stored, and
    keeps its orientation as a note.

    Args:
        stored: a photo that is not turned yet.
        mask_size: (width, height) of the mask, upright.
    """
    upright = turn_upright(stored)
    return stored if mask_size == stored.size != upright.size else upright


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
    cells = torch.from_numpy(touched.astype(np.float32))[None, None]
    return F.max_pool2d(cells, 2 * ring + 1, stride=1, padding=ring)[0, 0] > 0


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
