"""The page's functions for programs: typed, streaming, independent of the widgets.

Images travel as text: a data URL or plain base64 of an image file (PNG, JPEG, WebP, TIFF and what
else `data.kinds` names). An uploaded file (what `gradio_client.handle_file` sends) is taken as
well. What they show is upright; a mask that fits a photo only as it is stored leaves it so.
"""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import wraps
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from demo.runs import edit, frames
from demo.runs.edit_frame import DIRECTIONS
from demo.runs.exports import recipe_of
from demo.runs.generate import generate_run, model_name, parse_generate
from demo.runs.photos import bytes_from_text, file_errors, take_upload
from demo.serving.models import ModelHolder
from demo.settings import FIELDS, NO_CLASS, Field, RequestError, parse_number, usual_values
from maskgit_core.data.colour import rgb_profile
from maskgit_core.data.image_files import write_image
from maskgit_core.data.images import ORIENTATION, load_image, orientation_of
from maskgit_core.editing.masks import as_pixel_mask, open_with_mask

Runs = Generator[tuple[dict[str, Any], list[Image.Image]], None, None]

# All that programs may call; the page's own events have no name that is answered.
FUNCTIONS = ("generate", "inpaint", "outpaint", "classes", "models")


def read_file(value: Any, name: str) -> bytes:
    """The image file that a program sent; RequestError names the argument."""
    try:
        if isinstance(value, dict) and value.get("path"):
            return take_upload(value["path"])
        return bytes_from_text(value)
    except RequestError as error:
        raise RequestError(f"{name}: {error}") from None


def read_image(value: Any, name: str) -> Image.Image:
    """Open a photo that a program sent, upright; otherwise as `read_with_mask`.

    Raises:
        RequestError: it cannot be read; it names the argument.
    """
    content = read_file(value, name)
    try:
        with file_errors():
            photo = load_image(content, keep_alpha=True)
    except RequestError as error:
        raise RequestError(f"{name}: {error}") from None
    _forget_all_but_colours(photo)
    return photo


def read_with_mask(image: Any, mask: Any) -> tuple[Image.Image, np.ndarray]:
    """A photo and its mask that a program sent.

    Returns:
        The photo, RGB or RGBA, which keeps the profile of a wide gamut, so that its pixels can stay
        as they are; and bool (H, W), True where the mask is bright (or, with alpha, opaque).

    Raises:
        RequestError: one that cannot be read, or a mask of another size.
    """
    content, drawn = read_file(image, "image"), read_file(mask, "mask")
    try:
        with file_errors():
            photo, marked = open_with_mask(content, drawn)
    except RequestError as error:
        text = str(error)
        text = text if text.startswith("mask: ") else f"image: {text}"
        raise RequestError(text.replace("mask: image ", "mask: The file ")) from None
    if marked.size != photo.size:
        raise RequestError(
            f"mask must be as large as the image, {photo.width} x {photo.height} pixels; "
            f"it is {marked.width} x {marked.height}."
        )
    try:
        pixel_mask = as_pixel_mask(marked, photo.size)
    except ValueError as error:
        raise RequestError(f"{error}.") from None
    _forget_all_but_colours(photo)
    return photo, pixel_mask


def _forget_all_but_colours(photo: Image.Image) -> None:
    """Leave of what the file said only what its pixels mean: their profile and which way is up."""
    kept: dict[str, Any] = {}
    if rgb_profile(photo) is not None:
        kept["icc_profile"] = photo.info["icc_profile"]
    if orientation_of(photo) != 1:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation_of(photo)
        kept["exif"] = exif.tobytes()
    photo.info = kept


def _png(image: Image.Image, recipe: Mapping[str, Any] | None) -> str:
    buffer = io.BytesIO()
    write_image(image, buffer, "PNG", recipe)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _step(run: dict[str, Any], images: list[str]) -> dict[str, Any]:
    return {
        "step": len(run["frames"]),
        "num_steps": run["num_steps"],
        "done": run["result"] is not None,
        "tokens": frames.tokens_after(run).tolist() if run["frames"] else [],
        "preview": run["result"] or (run["frames"][-1]["src"] if run["frames"] else ""),
        "place": run["waiting"],
        "images": images,
        "recipe": run["recipe"],
    }


def _settings(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that were given, and for the others what the model's page opens with."""
    return {
        **usual_values(model),
        **{name: value for name, value in given.items() if value is not None},
    }


def _for_programs(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """A function with one parameter for each setting of the page instead of `settings`.

    They stand before its other parameters that must be named, all of which become positional: so
    a new one comes last, and calls without it stay right.
    """
    signature = inspect.signature(function, eval_str=True)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    own = [p for p in signature.parameters.values() if p.name != "settings"]
    fields = [
        inspect.Parameter(field.name, kind, default=None, annotation=_type_of(field) | None)
        for field in FIELDS
    ]
    first = [parameter for parameter in own if parameter.kind is kind]
    last = [parameter.replace(kind=kind) for parameter in own if parameter.kind is not kind]
    full = signature.replace(parameters=[*first, *fields, *last])

    @wraps(function)
    def run(*args: Any, **named: Any) -> Iterator[Any]:
        bound = full.bind(*args, **named)
        bound.apply_defaults()
        values = bound.arguments
        settings = {field.name: values.pop(field.name) for field in FIELDS}
        try:
            yield from function(**values, settings=settings)
        except RequestError as error:
            raise gr.Error(str(error), print_exception=False) from None

    run.__signature__ = full  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in full.parameters.items()}
    return run


def _type_of(field: Field) -> type:
    if field.choices:
        return str
    return int if field.whole else float


def add_api(holder: ModelHolder, scheduler: Any) -> None:
    """Add what `FUNCTIONS` names. Call inside the `gr.Blocks`."""

    @_for_programs
    def generate(
        classes: list[str], count: int = 1, seed: int = 0, *, settings: dict
    ) -> Iterator[dict]:
        """Generate images of classes, named or numbered; with several the images take turns.

        Settings that are left out are the loaded model's own, as on its page.
        Yields one object a step: step, num_steps, done, tokens (images x rows x columns; the
        number of codes where still masked), preview (all images in one WebP data URL), images
        (PNG data URLs, on the last object only), recipe, and place. While the run waits for
        others there is an object with step 0 and its place in line about once a second.
        """
        yield from _generate_steps(holder, scheduler, classes, count, seed, settings)

    @_for_programs
    def inpaint(
        image: str,
        mask: str,
        label: str = NO_CLASS,
        count: int = 1,
        seed: int = 0,
        *,
        settings: dict,
        box: list[int] | None = None,
    ) -> Iterator[dict]:
        """Repaint the bright part of a mask in a photo of any size; all other pixels stay the same.

        image and mask are data URLs or base64 of image files of the same size; label is a class
        or its number, or "No class". box, [left, top, right, bottom] in pixels, is the part of the
        photo that the model sees; a tight one around the bright part if left out. Settings as for
        /generate, which also yields the same objects; images are the size of the photo. Pixels
        that are not repainted are bit-identical to those of the file, unless it is grey of 16 bits,
        CMYK, or grey with a colour profile: those become 8-bit sRGB.
        """
        photo, pixel_mask = read_with_mask(image, mask)
        model = holder.current
        request = edit.parse_edit(
            model, photo, pixel_mask, label, count, seed, _settings(model, settings), box=box
        )
        name = model.name
        del model  # a run that waits must not keep it in memory
        yield from _stream(scheduler.run(edit.edit_run, holder, name, request))

    @_for_programs
    def outpaint(
        image: str,
        left: float = 0,
        right: float = 0,
        up: float = 0,
        down: float = 0,
        label: str = NO_CLASS,
        count: int = 1,
        seed: int = 0,
        *,
        settings: dict,
    ) -> Iterator[dict]:
        """Carry a photo on beyond its edges; all of its pixels stay as in /inpaint.

        image is a data URL or base64 of an image file; left, right, up and down say how far, as
        shares of its width or height from 0 to 1, at least one above 0. The rest as for /inpaint;
        images are larger than the photo.
        """
        sides = {
            side: float(parse_number(side, value, 0, 1, whole=False))
            for side, value in zip(DIRECTIONS, (left, right, up, down), strict=True)
        }
        photo = read_image(image, "image")
        model = holder.current
        request = edit.parse_outpaint(
            model, photo, sides, label, count, seed, _settings(model, settings)
        )
        name = model.name
        del model  # a run that waits must not keep it in memory
        yield from _stream(scheduler.run(edit.edit_run, holder, name, request))

    def classes() -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return list(holder.current.classes)

    def models() -> list[dict]:
        """The loaded model: its name, classes, pixels and tokens a side, and number of codes."""
        model = holder.current
        return [
            {
                "name": model_name(model),
                "num_classes": len(model.classes),
                "image_size": int(model.image_size),
                "grid_size": int(model.grid_size),
                "codebook_size": int(model.mask_token_id),
            }
        ]

    shared: dict[str, Any] = {
        "concurrency_id": "model",
        "concurrency_limit": scheduler.concurrency,
    }
    gr.api(generate, api_name="generate", **shared)
    gr.api(inpaint, api_name="inpaint", **shared)
    gr.api(outpaint, api_name="outpaint", **shared)
    gr.api(classes, api_name="classes", queue=False)
    gr.api(models, api_name="models", queue=False)


def _stream(runs: Runs) -> Iterator[dict[str, Any]]:
    # Closed at the result: what may come after it are pictures of the steps, for the page.
    with closing(runs):
        for run, results in runs:
            if run["frames"] or run["waiting"]:
                yield _step(
                    run, [_png(image, recipe_of(run, i)) for i, image in enumerate(results)]
                )
            if results:
                return


def _generate_steps(
    models: ModelHolder, scheduler: Any, classes: Any, count: Any, seed: Any, values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    model = models.current
    name, values = model.name, _settings(model, values)
    request = parse_generate(model, classes, count, seed, values)
    del model  # a run that waits must not keep it in memory
    yield from _stream(scheduler.run(generate_run, models, name, request))
