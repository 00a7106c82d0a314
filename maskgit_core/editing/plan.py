"""Edits of a photo: from painted pixels to masked tokens, and from tokens back into the photo.

The order is: plan_edit -> encode(plan.blanked) -> mask id where plan.token_mask -> decode ->
finish_edit. Painted pixels are replaced before the photo is resized or encoded, so nothing of what
they showed can reach the result; every token that the painted area touches is predicted, and one
ring more, because tokens at the border still carry the shape of the blank.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskgit_core.config import check_range
from maskgit_core.data.colour import from_srgb, rgb_profile, to_srgb
from maskgit_core.data.images import (
    MAX_PIXELS,
    Box,
    flatten_alpha,
    load_image,
    resize,
    to_image,
    to_tensor,
)
from maskgit_core.editing.blend import extrapolate, fill_hidden
from maskgit_core.editing.masks import (
    PixelMask,
    as_pixel_mask,
    crop_mask,
    mask_bounds,
    token_mask_from_pixels,
)

# The square that is edited is at least this many times as wide as the painted area, and as so many
# times the model's image: the network needs surroundings, and a photo that is not much larger is
# seen whole. No wider, however large the photo: the painted area is to get many of its pixels.
_CONTEXT = 2.0
_LEAST_SCALE = 2
# The square may reach this many times across the photo; a still longer painted area is squeezed,
# since a thin strip of photo in a large unknown square would leave the network nothing to see.
_MOST_SURPLUS = 1.5
# A part of the photo of more than this many times the model's image is first reduced by a whole
# factor, to save memory.
_MOST_SCALE = 8
# Width of the blend inside the painted area, as a share of the square's side.
FEATHER = 1 / 16


@dataclass(frozen=True)
class EditPlan:
    """All that an edit needs besides the network.

    Args:
        image: the photo at its own size, RGB, or RGBA where it has transparency; with its colour
            profile, where it has one of RGB.
        pixel_mask: bool (H, W), True where the photo is to be repainted.
        box: (left, top, right, bottom), the part of the photo that the network sees, in pixels: a
            square (see `plan_edit` for the exception). It may reach beyond the photo, where
            everything is unknown.
        blanked: float32 (1, 3, S, S) in [-1, 1]: that square at the model's size, in sRGB, without
            a trace of painted pixels.
        token_mask: bool (h, w), True where tokens are to be predicted.
    """

    image: Image.Image
    pixel_mask: np.ndarray
    box: Box
    blanked: Tensor
    token_mask: Tensor


def plan_edit(
    image: Image.Image,
    pixel_mask: PixelMask,
    image_size: int,
    grid_size: int,
    *,
    box: Sequence[int] | None = None,
    ring: int = 1,
) -> EditPlan:
    """Plan the repainting of a part of a photo of any size and shape.

    The network sees a square around the painted area. Where that area is wider than the photo is
    high (or the other way round), the square reaches beyond the photo and the network paints the
    surplus too, which is cut off at the end. Where it is more than 1.5 times as wide, the part
    that the network sees is squeezed to a square and stretched back.

    Args:
        image: a photo of any mode and size, taken as it lies in memory: its EXIF orientation turns
            neither it nor the mask, and stays with the result.
        pixel_mask: what to repaint, as in `as_pixel_mask`.
        image_size: S, the model's pixels a side.
        grid_size: the model's tokens a side.
        box: (left, top, right, bottom) in pixels of a square that holds the painted area; another
            rectangle is squeezed, and what lies beyond the photo is unknown. None chooses a square
            twice as wide as the painted area, but at least twice as wide as the model's image.
        ring: tokens around the touched ones that are predicted as well.

    Raises:
        ValueError: nothing painted, a mask of another size than the photo, or a box that
            cuts through the painted area or has more than `MAX_PIXELS` pixels.
    """
    photo = load_image(image, keep_alpha=True)
    painted = as_pixel_mask(pixel_mask, photo.size)
    if not painted.any():
        raise ValueError("pixel_mask must have something painted; got an empty mask")
    area = mask_bounds(painted)
    box = _choose_box(photo.size, area, image_size) if box is None else _checked_box(box, area)
    blanked = _blanked_square(photo, painted, box, image_size)
    token_mask = token_mask_from_pixels(crop_mask(painted, box), grid_size, ring=ring)
    return EditPlan(photo, painted, box, blanked, token_mask)


def plan_outpaint(
    image: Image.Image,
    image_size: int,
    grid_size: int,
    *,
    left: float = 0.0,
    right: float = 0.0,
    up: float = 0.0,
    down: float = 0.0,
    ring: int = 1,
) -> EditPlan:
    """Plan the extension of a photo beyond its borders.

    The photo is put on a larger canvas and the rest of it is painted. A photo that is extended on
    one side keeps its scale: the network sees the square at that side, which is the photo shifted
    on the token grid. Extended on opposite sides, the whole canvas is seen.

    Args:
        image: a photo of any mode and size.
        image_size: S, the model's pixels a side.
        grid_size: the model's tokens a side.
        left, right, up, down: how far, as a share of the photo's width or height, in [0, 1];
            rounded to whole tokens, at least one where above 0.
        ring: as in `plan_edit`.

    Returns:
        A plan whose image is the canvas.

    Raises:
        ValueError: no direction, a share out of range, or a canvas of more than `MAX_PIXELS`
            pixels, which is found out before it takes memory.
    """
    shares = {"left": left, "right": right, "up": up, "down": down}
    for name, share in shares.items():
        check_range(name, share, 0.0, 1.0)
    if not any(shares.values()):
        raise ValueError("left, right, up or down must be above 0; got 0 for all")
    photo = load_image(image, keep_alpha=True)
    width, height = photo.size
    add_left, add_right = (_token_pixels(shares[k], width, grid_size) for k in ("left", "right"))
    add_up, add_down = (_token_pixels(shares[k], height, grid_size) for k in ("up", "down"))
    size = (width + add_left + add_right, height + add_up + add_down)
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f"left, right, up and down must give at most {MAX_PIXELS / 1e6:.0f} megapixels; got "
            f"{size[0]} x {size[1]}, {size[0] * size[1] / 1e6:.1f} megapixels"
        )
    canvas = Image.new(photo.mode, size)
    canvas.info = {**photo.info}
    canvas.paste(photo, (add_left, add_up))
    painted = np.ones((size[1], size[0]), dtype=bool)
    painted[add_up : add_up + height, add_left : add_left + width] = False
    return plan_edit(canvas, painted, image_size, grid_size, ring=ring)


def _token_pixels(share: float, side: int, grid_size: int) -> int:
    if share == 0:
        return 0
    num_tokens = max(1, round(share * grid_size))
    return max(1, round(num_tokens * side / grid_size))


def finish_edit(plan: EditPlan, generated: Tensor) -> Image.Image:
    """Return the photo with the painted area replaced; see `composite`.

    Args:
        plan: of `plan_edit` or `plan_outpaint`.
        generated: float32 (1, 3, S, S) or (3, S, S), in [-1, 1], the decoded square.
    """
    photo = plan.image.copy()
    _paste_generated(photo, plan.pixel_mask, plan.box, generated, plan.blanked)
    return photo


def composite(
    image: Image.Image,
    generated: Tensor,
    pixel_mask: PixelMask,
    box: Sequence[int] | None = None,
) -> Image.Image:
    """Put a generated square into the painted area of a photo, and nowhere else.

    Inside the painted area, near its edge, the colours are shifted towards those of the kept
    pixels around it, so that no seam shows. What the painted pixels held is not looked at.

    Args:
        image: the photo at its own size.
        generated: float32 (1, 3, S, S) or (3, S, S), in [-1, 1].
        pixel_mask: what to repaint, as in `as_pixel_mask`.
        box: the part (left, top, right, bottom) of the photo that was generated; None is the
            whole photo.

    Returns:
        An image of the photo's size: RGB, or RGBA where the photo has transparency, with the
        photo's profile where that is one of RGB. Kept pixels (and their alpha) are bit-identical
        to the photo's in that form, which is the photo's own unless it is grey of 16 bits, CMYK,
        Lab, or grey with a profile: those become 8-bit sRGB. Repainted ones are opaque.

    Raises:
        ValueError: shapes that do not fit, or a box that cuts through the painted area.
    """
    photo = load_image(image, keep_alpha=True)
    painted = as_pixel_mask(pixel_mask, photo.size)
    if not painted.any():
        return photo
    box = _checked_box((0, 0, *photo.size) if box is None else box, mask_bounds(painted))
    _paste_generated(photo, painted, box, generated)
    return photo


def _paste_generated(
    photo: Image.Image,
    painted: np.ndarray,
    box: Box,
    generated: Tensor,
    blanked: Tensor | None = None,
) -> None:
    """Write the generated square into the painted pixels of the photo, in place."""
    square = generated.detach().to("cpu", torch.float32).reshape(1, *generated.shape[-3:])
    side = square.shape[-1]
    if square.shape != (1, 3, side, side):
        raise ValueError(f"generated must be (1, 3, S, S); got {tuple(generated.shape)}")
    if blanked is None or blanked.shape != square.shape:
        blanked = _blanked_square(photo, painted, box, side)
    visible = ~token_mask_from_pixels(crop_mask(painted, box), side, ring=0)
    blended = _match_edges(square.clamp(-1, 1), blanked.cpu(), visible[None, None].float())
    patch = resize(to_image(blended), (box[2] - box[0], box[3] - box[1]))
    patch = from_srgb(patch, rgb_profile(photo))
    hole = Image.fromarray(crop_mask(painted, box, outside=False))
    photo.paste(patch.convert(photo.mode), box[:2], hole)


def _match_edges(square: Tensor, target: Tensor, visible: Tensor) -> Tensor:
    """Shift the square's hidden pixels near visible ones by the difference found at those."""
    if not bool(visible.any()):
        return square
    side = square.shape[-1]
    difference = extrapolate((target - square) * visible, visible)
    reach = max(1, round(side * FEATHER))
    # The share of visible pixels around is reach / (2 reach + 1) just inside a straight edge, and
    # falls to 0 as far inside as it reaches.
    window = 2 * reach + 1
    nearby = F.avg_pool2d(visible, window, stride=1, padding=reach, count_include_pad=False)
    weight = (nearby * window / reach).clamp_max(1.0)
    return (square + weight * difference).clamp(-1, 1)


def _choose_box(size: tuple[int, int], area: Box, image_size: int) -> Box:
    short = min(size)
    extent = max(area[2] - area[0], area[3] - area[1])
    wanted = max(round(_CONTEXT * extent), _LEAST_SCALE * image_size)
    side = max(extent, min(short, wanted))
    left, width = _choose_span(size[0], area[0], area[2], side)
    top, height = _choose_span(size[1], area[1], area[3], side)
    return left, top, left + width, top + height


def _choose_span(length: int, low: int, high: int, side: int) -> tuple[int, int]:
    """Return start and width of the box along one axis of the photo, `length` pixels long."""
    side = min(side, max(length, round(_MOST_SURPLUS * length)))
    if side > length:
        return (length - side) // 2, side
    return min(max((low + high - side) // 2, 0), length - side), side


def _checked_box(box: Sequence[int], area: Box) -> Box:
    """Return a box of a caller's as whole numbers, if it holds the painted area."""
    try:
        left, top, right, bottom = (operator.index(edge) for edge in box)
    except (TypeError, ValueError):
        raise ValueError(
            f"box must be four whole numbers (left, top, right, bottom); got {box!r}"
        ) from None
    if left >= right or top >= bottom:
        raise ValueError(f"box must be (left, top, right, bottom); got {box}")
    if area[0] < left or area[1] < top or area[2] > right or area[3] > bottom:
        raise ValueError(f"box must hold the painted area {area}; got {box}")
    if (right - left) * (bottom - top) > MAX_PIXELS:
        raise ValueError(f"box must have at most {MAX_PIXELS / 1e6:.0f} megapixels; got {box}")
    return left, top, right, bottom


def _blanked_square(photo: Image.Image, painted: np.ndarray, box: Box, image_size: int) -> Tensor:
    cropped, hidden = photo.crop(box), crop_mask(painted, box)
    factor = min(cropped.size) // (_MOST_SCALE * image_size)
    if factor > 1:
        # A block of pixels with a hidden one among them is hidden, so none of them is averaged in.
        cropped = cropped.reduce(factor)
        width, height = cropped.size
        hidden = np.pad(
            hidden,
            ((0, height * factor - hidden.shape[0]), (0, width * factor - hidden.shape[1])),
        )
        hidden = np.asarray(hidden.reshape(height, factor, width, factor).any((1, 3)))
    if cropped.mode != "RGB":
        cropped = flatten_alpha(cropped)
    filled = fill_hidden(cropped, hidden)
    small = resize(filled, (image_size, image_size))
    return to_tensor(to_srgb(small, rgb_profile(photo)))
