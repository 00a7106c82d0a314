"""Where an edit takes place: the frame over the photo, and the plan that the model follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from demo.settings import AMOUNT, RequestError, parse_number, parse_value
from maskgit_core.data.images import Box
from maskgit_core.editing.plan import EditPlan

DIRECTIONS = ("left", "right", "up", "down")
# All variations together: every pixel takes three bytes, and takes its time to be packed.
MAX_RESULT_PIXELS = 100_000_000


class NothingPainted(RequestError):
    """There is nothing to repaint."""


def check_size(pixels: float, count: int) -> None:
    """Raise RequestError where `count` results of `pixels` pixels are more than can be handled."""
    if pixels * count > MAX_RESULT_PIXELS:
        raise RequestError(
            f"The results would have more than {MAX_RESULT_PIXELS / 1e6:.0f} megapixels together. "
            "Ask for fewer variations, extend less, or open a smaller photo."
        )


def parse_frame(frame: Any, size: tuple[int, int]) -> Box | None:
    """Read the square that the visitor put over the photo.

    Args:
        frame: [left, top, side]: left as a share of the width, top of the height, side of the
            shorter of both; None where the visitor chose none.
        size: (width, height) of the photo in pixels.

    Returns:
        (left, top, right, bottom) in pixels, inside the photo; None where there is no frame.

    Raises:
        RequestError: no such numbers.
    """
    if frame is None:
        return None
    if not isinstance(frame, list | tuple) or len(frame) != 3:
        raise RequestError("The frame over the photo cannot be read. Press Automatic frame.")
    left, top, side = (parse_number("The frame", v, -1e-3, 1 + 1e-3, whole=False) for v in frame)
    pixels = min(max(1, round(side * min(size))), *size)
    x = min(max(round(left * size[0]), 0), size[0] - pixels)
    y = min(max(round(top * size[1]), 0), size[1] - pixels)
    return x, y, x + pixels, y + pixels


def framed_mask(pixel_mask: np.ndarray, box: Box | None) -> np.ndarray:
    """What is painted inside a box of the photo: bool (H, W); all of it where there is none."""
    if box is None:
        return pixel_mask
    inside = np.zeros_like(pixel_mask)
    part = np.s_[box[1] : box[3], box[0] : box[2]]
    inside[part] = pixel_mask[part]
    return inside


def plan_repaint(
    model: Any,
    photo: Image.Image,
    pixel_mask: np.ndarray,
    frame: Any = None,
    box: Any = None,
) -> EditPlan:
    """Plan a repaint; what is painted outside a frame that the visitor chose stays as it is.

    Args:
        frame: as in `parse_frame`.
        box: in pixels; it must hold all that is painted.

    Raises:
        NothingPainted: nothing is painted inside the frame.
        RequestError: the frame or the box cannot be used.
    """
    if box is not None:
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise RequestError("box must be four whole numbers: left, top, right, bottom.")
        edges = [int(parse_number("box", edge, -1e6, 1e6, whole=True)) for edge in box]
        try:
            return model.plan_inpaint(photo, pixel_mask, edges)
        except ValueError as error:
            raise RequestError(f"{error}.") from None
    framed = parse_frame(frame, photo.size)
    inside = framed_mask(pixel_mask, framed)
    if not inside.any():
        raise NothingPainted(
            "Nothing is painted inside the frame. Move the frame, or press Automatic frame."
        )
    return model.plan_inpaint(photo, inside, framed)


def parse_sides(directions: Any, amount: Any) -> dict[str, float]:
    """How far an extension goes to each chosen side, as a share of the photo's width or height.

    Args:
        directions: a list of some of `DIRECTIONS`.
        amount: per cent, 10 to 100.

    Raises:
        RequestError: no side, or an amount out of range.
    """
    given = directions if isinstance(directions, list | tuple) else []
    chosen = [str(word).lower() for word in given]
    if not chosen or any(word not in DIRECTIONS for word in chosen):
        raise RequestError("Choose at least one side to extend: left, right, up or down.")
    share = parse_value(AMOUNT, amount) / 100
    return dict.fromkeys(chosen, share)


def plan_sides(model: Any, photo: Image.Image, sides: Mapping[str, float]) -> EditPlan:
    """Plan to carry a photo on beyond its edges.

    Args:
        model: a `MaskGIT`.
        photo: RGB or RGBA, any size.
        sides: shares of its width or height by the names of `DIRECTIONS`, each in [0, 1].

    Raises:
        RequestError: no side, or further than the result may be large.
    """
    wide = 1 + sides.get("left", 0) + sides.get("right", 0)
    high = 1 + sides.get("up", 0) + sides.get("down", 0)
    check_size(photo.width * wide * photo.height * high, 1)
    try:
        return model.plan_outpaint(photo, **sides)
    except ValueError as error:
        raise RequestError(f"This photo cannot be extended so: {error}.") from None


def frame_shares(plan: EditPlan) -> list[float]:
    """The part of the photo that the model sees: left, top, right, bottom as shares of its sides.

    Below 0 or above 1 where it reaches beyond the photo.
    """
    width, height = plan.image.size
    return [round(v / side, 5) for v, side in zip(plan.box, (width, height) * 2, strict=True)]
