"""Edits of a photo: from the photo, what is painted and the settings to a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.runs import frames
from demo.runs.edit_frame import NothingPainted, check_size, plan_repaint, plan_sides
from demo.runs.generate import precision_of
from demo.serving.one_thread import in_one_thread
from demo.serving.request import Request
from demo.settings import (
    NO_CLASS,
    START_PERCENT,
    VARIATIONS,
    RequestError,
    build_config,
    match_class,
    parse_seed,
    parse_value,
    shown_values,
)
from maskgit_core.data.images import flatten_alpha, resize, to_tensor
from maskgit_core.editing.plan import EditPlan
from maskgit_core.recipes import NO_CLASS as NONE

PREVIEW_SIDE = 384


@dataclass(frozen=True)
class Edit:
    """A planned edit on a model: all that does not depend on the settings.

    Args:
        plan: the photo, what is repainted, and the square that the model sees.
        tokens: int64 (1, h, w), the grid that it starts from, the mask id where it decides.
        base: data URL of the square of the photo.
        sides: of an extension, how far to each side, as shares; for its recipe.
    """

    plan: EditPlan
    tokens: Tensor
    base: str
    sides: Mapping[str, float] = field(default_factory=dict)


def start_edit(model: Any, plan: EditPlan, sides: Mapping[str, float] | None = None) -> Edit:
    """Encode what a plan keeps of its photo; `sides` as in `Edit`."""
    tokens = in_one_thread(model.encode, plan.blanked)
    tokens = tokens.masked_fill(plan.token_mask.cpu(), int(model.mask_token_id))
    base = frames.preview_url(square_preview(plan.image, plan), PREVIEW_SIDE)
    return Edit(plan, tokens, base, sides or {})


def parse_label(model: Any, class_name: Any) -> int | None:
    """Class index, or None where the class is left open.

    Raises:
        RequestError: an unknown class, or none where the model cannot do without.
    """
    is_open = class_name in (None, "", NO_CLASS)
    if is_open or (class_name not in model.classes and str(class_name).strip().lower() == NONE):
        if model.null_label is None:
            raise RequestError("Choose a class to fill it with: this model cannot do without.")
        return None
    return match_class(class_name, list(model.classes))


def repaint(
    model: Any,
    photo: Image.Image,
    pixel_mask: np.ndarray | None,
    frame: Any = None,
    box: Any = None,
) -> Edit:
    """Plan the repainting of a marked part of a photo.

    Args:
        model: a `MaskGIT`.
        photo: RGB or RGBA, any size.
        pixel_mask: bool (H, W) of the photo's size, True = repaint.
        frame: the square that the visitor chose, as in `parse_frame`; None leaves it to the model.
        box: the part that the model sees in pixels, [left, top, right, bottom], instead of a frame.

    Raises:
        RequestError: one sentence that says what to change.
    """
    if pixel_mask is None or not pixel_mask.any():
        raise NothingPainted("Paint over the part that should change first.")
    check_size(photo.width * photo.height, 1)
    return start_edit(model, plan_repaint(model, photo, pixel_mask, frame, box))


def extend(model: Any, photo: Image.Image, sides: Mapping[str, float]) -> Edit:
    """Plan to carry a photo on beyond its edges; arguments and errors as `plan_sides`."""
    return start_edit(model, plan_sides(model, photo, sides), sides)


def edit_request(
    model: Any,
    edit: Edit,
    class_name: Any,
    count: Any,
    seed: Any,
    values: Mapping[str, Any],
    start_percent: Any = 0,
) -> Request:
    """Check the settings of a planned edit.

    Args:
        model: the `MaskGIT` that it was planned for.
        edit: what is repainted.
        class_name: a class, or `NO_CLASS`.
        count, seed: variations and first seed, as typed; variation i uses seed + i.
        values: sampling settings as shown.
        start_percent: per cent of the masked cells that start from the photo's own tokens, 0 to
            90. Above 0, painted pixels reach the result.

    Raises:
        RequestError: one sentence that says what to change.
    """
    number = parse_value(VARIATIONS, count)
    check_size(edit.plan.image.width * edit.plan.image.height, number)
    label, first, config = parse_label(model, class_name), parse_seed(seed), build_config(values)
    percent = parse_value(START_PERCENT, start_percent)
    return Request(
        kind="edit",
        model=str(model.name),
        mask_token_id=int(model.mask_token_id),
        tokens_per_cell=int(model.tokens_per_cell),
        tokens=_start_tokens(model, edit, percent / 100, first).repeat(number, 1, 1),
        labels=(label,) * number,
        seeds=tuple(first + i for i in range(number)),
        configs=(config,),
        captions=tuple(f"Variation {i + 1}, seed {first + i}" for i in range(number)),
        recipe={
            "task": "edit",
            "model": str(model.name),
            "class": NO_CLASS if label is None else model.classes[label],
            "count": number,
            "seed": first,
            "start_percent": percent,
            "box": list(edit.plan.box),
            **edit.sides,
            **shown_values(config),
            **precision_of(model),
        },
        base=edit.base,
        plan=edit.plan,
    )


def _start_tokens(model: Any, edit: Edit, share: float, seed: int) -> Tensor:
    """The grid that an edit starts from: int64 (1, h, w), the mask id where it decides.

    Above 0, that share of the masked cells, chosen by the seed, holds the photo's own tokens; at
    least one cell stays masked.
    """
    if share == 0:
        return edit.tokens
    plan = edit.plan
    square = resize(
        flatten_alpha(plan.image.crop(plan.box)), (int(model.image_size), int(model.image_size))
    )
    own = in_one_thread(model.encode, to_tensor(square))
    places = plan.token_mask.cpu().flatten().nonzero().flatten()
    count = min(round(share * len(places)), len(places) - 1)
    generator = torch.Generator().manual_seed(seed)
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    tokens = edit.tokens.clone()
    tokens.view(-1)[chosen] = own.view(-1)[chosen]
    return tokens


def square_preview(image: Image.Image, plan: EditPlan) -> Image.Image:
    """The part of an image of the photo's size that the model sees, at most `PREVIEW_SIDE`."""
    square = flatten_alpha(image.crop(plan.box))
    side = min(PREVIEW_SIDE, max(square.size))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def preview_head(model: Any, edit: Edit) -> dict[str, Any]:
    """The head of a run without steps: the photo, and which cells an edit would decide."""
    unknown = frames.as_array(edit.tokens)[0] == int(model.mask_token_id)
    return frames.run_head(
        run=frames.new_run_name(),
        kind="preview",
        model_name=str(model.name),
        grid=(unknown.shape[0], unknown.shape[1]),
        captions=[f"{int(unknown.sum())} of {unknown.size} cells will be decided anew"],
        plan=[float(unknown.mean())],
        mask_token_id=model.mask_token_id,
        base=edit.base,
        known=frames.as_array(edit.tokens),
    )
