"""Check a request for an edit, call the pipeline, hand plain data on. No widgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from demo.runs import frames, generate
from demo.runs.edit_frame import (
    check_size,
    parse_sides,
    parse_variations,
    plan_repaint,
    plan_sides,
)
from demo.serving.decoding import Decode, DecodeRequest, decode_alone
from demo.serving.one_thread import in_one_thread
from demo.settings import (
    NO_CLASS,
    RequestError,
    build_config,
    match_class,
    parse_number,
    parse_seed,
    shown_values,
)
from maskgit_core.config import SamplingConfig
from maskgit_core.data.images import flatten_alpha, resize, to_tensor
from maskgit_core.editing.plan import EditPlan, finish_edit
from maskgit_core.recipes import NO_CLASS as NONE

PREVIEW_SIDE = 384


@dataclass(frozen=True)
class EditRequest:
    """A checked request for a repaint.

    Args:
        plan: the photo, what is repainted, and the square that the model sees.
        label: class index, or None to leave it open.
        count: variations; variation i uses seed + i.
        seed: first seed.
        config: how to decode.
        start_share: share of the masked cells that start from the photo's own tokens. Above 0,
            painted pixels reach the result; 0 is off.
        sides: of an extension, how far to each side, as shares; for its recipe.
    """

    plan: EditPlan
    label: int | None
    count: int
    seed: int
    config: SamplingConfig
    start_share: float = 0.0
    sides: Mapping[str, float] = field(default_factory=dict)


def parse_label(model: Any, class_name: Any) -> int | None:
    """Class index, or None where the class is left open.

    Raises:
        RequestError: an unknown class, or none where the model cannot do without.
    """
    opened = class_name in (None, "", NO_CLASS)
    if opened or (class_name not in model.classes and str(class_name).strip().lower() == NONE):
        if model.null_label is None:
            raise RequestError("Choose a class to fill it with: this model cannot do without.")
        return None
    return match_class(class_name, list(model.classes))


def parse_edit(
    model: Any,
    photo: Image.Image | None,
    pixel_mask: np.ndarray | None,
    class_name: Any,
    count: Any,
    seed: Any,
    values: Mapping[str, Any],
    start_percent: Any = 0,
    frame: Any = None,
    box: Any = None,
) -> EditRequest:
    """Check a request to repaint a marked part of a photo.

    Args:
        model: a `MaskGIT`.
        photo: RGB or RGBA, any size.
        pixel_mask: bool (H, W) of the photo's size, True = repaint.
        class_name: a class, or `NO_CLASS`.
        count, seed: variations and first seed, as typed.
        values: sampling settings as shown.
        start_percent: per cent of the masked cells that start from the photo, 0 to 90.
        frame: the square that the visitor chose, as in `parse_frame`; None leaves it to the model.
        box: the part that the model sees in pixels, [left, top, right, bottom], instead of a frame.

    Raises:
        RequestError: one sentence that says what to change.
    """
    if photo is None:
        raise RequestError("Open a photo first, or pick one of the examples.")
    if pixel_mask is None or not pixel_mask.any():
        raise RequestError("Paint over the part that should change first.")
    check_size(photo.width * photo.height, parse_variations(count))
    plan = plan_repaint(model, photo, pixel_mask, frame, box)
    request = _request(model, plan, class_name, count, seed, values)
    share = parse_number("Start from the photo", start_percent, 0, 90, whole=False) / 100
    return replace(request, start_share=share)


def parse_extend(
    model: Any,
    photo: Image.Image | None,
    directions: list[str],
    amount: Any,
    class_name: Any,
    count: Any,
    seed: Any,
    values: Mapping[str, Any],
) -> EditRequest:
    """Check a request to carry a photo on beyond its edges.

    Args:
        model: a `MaskGIT`.
        photo: RGB or RGBA, any size.
        directions: some of `edit_plans.DIRECTIONS`.
        amount: per cent of the photo's width or height added on each chosen side, 10 to 100.
        class_name, count, seed, values: as in `parse_edit`.

    Raises:
        RequestError: one sentence that says what to change.
    """
    if photo is None:
        raise RequestError("Open a photo first, or pick one of the examples.")
    sides = parse_sides(directions, amount)
    return parse_outpaint(model, photo, sides, class_name, count, seed, values)


def parse_outpaint(
    model: Any,
    photo: Image.Image,
    sides: Mapping[str, float],
    class_name: Any,
    count: Any,
    seed: Any,
    values: Mapping[str, Any],
) -> EditRequest:
    """Check a request to carry a photo on by a share of its own size for each side.

    Args:
        sides: shares by the names of `edit_frame.DIRECTIONS`, each in [0, 1].
        model, photo, class_name, count, seed, values: as in `parse_edit`.

    Raises:
        RequestError: one sentence that says what to change.
    """
    plan, chosen = plan_sides(model, photo, sides, parse_variations(count))
    return replace(_request(model, plan, class_name, count, seed, values), sides=chosen)


def _request(
    model: Any, plan: EditPlan, class_name: Any, count: Any, seed: Any, values: Mapping[str, Any]
) -> EditRequest:
    return EditRequest(
        plan,
        parse_label(model, class_name),
        parse_variations(count),
        parse_seed(seed),
        build_config(values),
    )


def edit_recipe(model: Any, request: EditRequest) -> dict[str, Any]:
    """The settings of the edit as plain data; the photo and the mask are not in it."""
    return {
        "task": "edit",
        "model": generate.model_name(model),
        "class": NO_CLASS if request.label is None else model.classes[request.label],
        "count": request.count,
        "seed": request.seed,
        "start_percent": round(100 * request.start_share),
        "box": list(request.plan.box),
        **request.sides,
        **shown_values(request.config),
        **generate.precision_of(model),
    }


def square_preview(image: Image.Image, plan: EditPlan) -> Image.Image:
    """The part of an image of the photo's size that the model sees, at most `PREVIEW_SIDE`."""
    square = flatten_alpha(image.crop(plan.box))
    side = min(PREVIEW_SIDE, max(square.size))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def mask_preview(model: Any, plan: EditPlan, known: np.ndarray | None = None) -> dict[str, Any]:
    """A run without steps: the photo, and which cells an edit would decide.

    Args:
        model: a `MaskGIT`.
        plan: of the edit.
        known: int64 (1, h, w), the grid that it starts from; made from the plan if not given.
    """
    if known is None:
        tokens = generate.as_array(in_one_thread(model.encode, plan.blanked))
        hidden = generate.as_array(plan.token_mask)
        known = np.where(hidden, int(model.mask_token_id), tokens)
    known = known[0]
    unknown = known == int(model.mask_token_id)
    share = float(unknown.mean())
    return frames.run_head(
        run=generate.new_run_name(),
        kind="preview",
        model_name=generate.model_name(model),
        grid=unknown.shape,
        captions=[f"{int(unknown.sum())} of {unknown.size} cells will be decided anew"],
        plan=[share],
        mask_token_id=model.mask_token_id,
        base=frames.preview_url(square_preview(plan.image, plan), PREVIEW_SIDE),
        known=known,
    )


def edit_run(
    model: Any, request: EditRequest, decode: Decode | None = None
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Decode an edit, all variations side by side; arguments as `generate.generate_run`.

    Yields:
        As `generate.generate_run`; the finished photos have their own size.

    Raises:
        RequestError: the run exceeded the time limit, or cannot be taken.
    """
    decode = decode or decode_alone(model)
    plan = request.plan
    known = start_tokens(model, request)
    run = _edit_head(model, request, generate.as_array(known))
    work = DecodeRequest(
        "edit",
        known.repeat(request.count, 1, 1),
        (request.label,) * request.count,
        request.config,
        request.seed,
    )
    del model  # a run that waits must not keep it in memory

    def finished(images: torch.Tensor) -> tuple[np.ndarray, list[Image.Image]]:
        results = [finish_edit(plan, images[i : i + 1]) for i in range(request.count)]
        return np.stack([np.asarray(square_preview(image, plan)) for image in results]), results

    yield from generate.follow_steps(run, decode(work), finished)


def start_tokens(model: Any, request: EditRequest) -> torch.Tensor:
    """The grid that an edit starts from: int64 (1, h, w), the mask id where it decides.

    With `start_share`, that share of the masked cells, chosen by the seed, holds the photo's own
    tokens instead; at least one cell stays masked.
    """
    plan = request.plan
    mask = plan.token_mask.cpu()
    tokens = in_one_thread(model.encode, plan.blanked)
    tokens = tokens.masked_fill(mask, int(model.mask_token_id))
    if request.start_share == 0:
        return tokens
    size = (int(model.image_size), int(model.image_size))
    square = resize(flatten_alpha(plan.image.crop(plan.box)), size)
    own = in_one_thread(model.encode, to_tensor(square))
    places = mask.flatten().nonzero().flatten()
    count = min(round(request.start_share * len(places)), len(places) - 1)
    generator = torch.Generator().manual_seed(request.seed)
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    tokens.view(-1)[chosen] = own.view(-1)[chosen]
    return tokens


def _edit_head(model: Any, request: EditRequest, known: np.ndarray) -> dict[str, Any]:
    preview = mask_preview(model, request.plan, known)
    unknown = int((known == int(model.mask_token_id)).sum())
    shares = generate.plan_shares(
        request.config.schedule,
        unknown,
        preview["rows"] * preview["columns"],
        request.config.num_steps,
    )
    captions = [f"Variation {i + 1}, seed {request.seed + i}" for i in range(request.count)]
    return {
        **preview,
        "kind": "edit",
        "count": request.count,
        "captions": captions,
        "sheet_columns": frames.sheet_columns(request.count),
        "plan": [round(share, 4) for share in shares],
        "num_steps": len(shares) - 1,
        "recipe": edit_recipe(model, request),
    }
