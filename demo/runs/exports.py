"""Files to keep from a finished run: film strip, animation, image sheet, recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.runs import frames, render
from demo.settings import RequestError
from maskgit_core.data.image_files import Recipe, write_image

SHEET_PIXELS = 768  # an animation is enlarged to about this many pixels a side
HOLD_SECONDS = 2.0  # how long an animation rests on its result
MAX_STRIP_ROWS = 16


def require_run(run: dict[str, Any] | None) -> dict[str, Any]:
    """The run, if it has at least one step; RequestError otherwise."""
    if not run or not run.get("frames"):
        raise RequestError("Generate something first; then it can be saved.")
    return run


def step_images(run: dict[str, Any], step: int, *, outlines: bool = False) -> np.ndarray:
    """What the player shows after `step` frames, at the model's own size.

    Args:
        run: see `frames`.
        step: 0 (nothing decided) to the number of frames.
        outlines: draw a border around the cells that this step decided.

    Returns:
        uint8 (B, H, W, 3).
    """
    columns = run["sheet_columns"]
    first = run["start"] or run["frames"][0]["src"]
    source = first if step == 0 else run["frames"][step - 1]["src"]
    images = render.split_sheet(render.open_data_url(source), run["count"], columns)
    masked = frames.masked_after(run, step)
    if run["base"] is not None:
        size = (images.shape[2], images.shape[1])
        base = np.asarray(render.open_data_url(run["base"]).resize(size, Image.Resampling.BOX))
        unknown = render.upsample_cells(frames.masked_after(run, 0), *images.shape[1:3])
        images = np.where(unknown[..., None], images, base)
    shown = render.draw_pattern(images, masked)
    if outlines and step > 0:
        new = np.zeros(masked.shape, dtype=bool)
        new.reshape(-1)[run["frames"][step - 1]["cells"]] = True
        shown = render.draw_outlines(shown, new)
    return shown


def film_strip(run: dict[str, Any]) -> Image.Image:
    """All steps from left to right, one row for each image."""
    run = require_run(run)
    steps = [step_images(run, step) for step in range(len(run["frames"]) + 1)]
    rows = np.stack(steps, axis=1)[:MAX_STRIP_ROWS]  # (B, S + 1, H, W, 3)
    return render.contact_sheet(rows.reshape(-1, *rows.shape[2:]), len(steps), gap=4)


def animation_frames(
    run: dict[str, Any], *, grid_lines: bool, final: np.ndarray | None = None
) -> list[Image.Image]:
    """The pictures of an animation: the start, every step, and the finished images.

    Args:
        run: see `frames`.
        grid_lines: outline the cells that each step decides.
        final: uint8 (B, H, W, 3), the finished images; None repeats the last step.
    """
    run = require_run(run)
    columns = run["sheet_columns"]
    pictures = [
        step_images(run, step, outlines=grid_lines) for step in range(len(run["frames"]) + 1)
    ]
    pictures.append(step_images(run, len(run["frames"])) if final is None else final)
    side = pictures[0].shape[2] * columns
    factor = max(1, round(SHEET_PIXELS / side))
    return [
        render.contact_sheet(render.enlarge(picture, factor), columns, gap=4)
        for picture in pictures
    ]


def write_animation(
    path: Path,
    pictures: list[Image.Image],
    *,
    kind: str,
    seconds_per_step: float,
    recipe: Recipe | None = None,
) -> None:
    """Write an endless animation that rests on its last picture.

    Args:
        path: the file.
        pictures: all of one size.
        kind: `webp` or `gif`.
        seconds_per_step: above 0.
        recipe: to be kept in it.
    """
    durations = [round(1000 * seconds_per_step)] * len(pictures)
    durations[-1] += round(1000 * HOLD_SECONDS)
    options: dict[str, Any] = {"save_all": True, "duration": durations, "loop": 0}
    if kind == "webp":
        options |= {"quality": 82, "method": 2, "lossless": False}
    elif kind == "gif":
        # One palette for all pictures, or the colours of settled cells would flicker.
        palette = pictures[-1].quantize(256, method=Image.Quantize.MEDIANCUT)
        pictures = [picture.quantize(palette=palette) for picture in pictures]
        options |= {"optimize": False}
    else:
        raise ValueError(f"kind must be webp or gif; got {kind!r}")
    write_image(pictures[0], path, kind.upper(), recipe, append_images=pictures[1:], **options)


def result_sheet(images: list[Image.Image], columns: int) -> Image.Image:
    """The finished images on one sheet; a single image is returned as it is."""
    if len(images) == 1:
        return images[0]
    return render.contact_sheet(np.stack([np.asarray(image) for image in images]), columns, gap=4)


def recipe_of(run: dict[str, Any], index: int | None = None) -> dict[str, Any] | None:
    """The recipe that a file of a run carries, see `frames`; arguments as `file_recipe`."""
    return file_recipe(run["recipe"], index, run["count"])


def file_recipe(
    recipe: dict[str, Any] | None, index: int | None, count: int
) -> dict[str, Any] | None:
    """The recipe that a file carries.

    Args:
        recipe: of all images; None where no recipe can make them.
        index: which of the images the file holds; None is all of them.
        count: how many there are.

    Returns:
        The recipe of all images, and where there are several the place of this one.
    """
    if recipe is None or index is None or count == 1:
        return recipe
    return {**recipe, "image": index}


def recipe_text(run: dict[str, Any]) -> str:
    """The recipe of a run as JSON text."""
    recipe = require_run(run)["recipe"]
    if recipe is None:
        raise RequestError("Some of these cells were decided again, which no recipe can repeat.")
    return json.dumps(recipe, indent=2, ensure_ascii=False) + "\n"
