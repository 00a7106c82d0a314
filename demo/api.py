"""The page's functions for programs: typed, streaming, independent of the widgets.

Images travel as text: a data URL or plain base64 of an image file (PNG, JPEG, WebP, TIFF and what
else `data.kinds` names). An uploaded file (what `gradio_client.handle_file` sends) is taken as
well. What they show is upright; a mask that fits a photo only as it is stored leaves it so.
"""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from demo.presets import usual_values
from demo.runs import frames
from demo.runs.edit import edit_request, extend, repaint
from demo.runs.edit_frame import DIRECTIONS
from demo.runs.exports import recipe_of
from demo.runs.follow import Progress, follow
from demo.runs.generate import parse_generate
from demo.runs.photos import DECODER, bytes_from_text, file_errors, take_upload
from demo.serving.fairness import current_visitor
from demo.serving.models import ModelHolder
from demo.serving.request import Request
from demo.serving.runner import Runner
from demo.settings import FIELDS, NO_CLASS, RequestError, parse_number
from maskgit_core.data.decoder import MASK, STORED
from maskgit_core.data.image_files import write_image
from maskgit_core.data.images import turn_upright
from maskgit_core.editing.masks import as_pixel_mask, turned_to_mask

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


def _opened(content: bytes, form: str) -> Image.Image:
    with file_errors():
        return DECODER.open(content, current_visitor(), form)


def read_image(value: Any, name: str) -> Image.Image:
    """Open a photo that a program sent, upright; otherwise as `read_with_mask`.

    Raises:
        RequestError: it cannot be read; it names the argument.
    """
    content = read_file(value, name)
    try:
        return turn_upright(_opened(content, STORED))
    except RequestError as error:
        raise RequestError(f"{name}: {error}") from None


def read_with_mask(image: Any, mask: Any) -> tuple[Image.Image, np.ndarray]:
    """A photo and its mask that a program sent, in one frame, see `masks.turned_to_mask`.

    Returns:
        The photo, RGB or RGBA, which keeps the profile of a wide gamut, so that its pixels can stay
        as they are; and bool (H, W), True where the mask is bright (or, with alpha, opaque).

    Raises:
        RequestError: one that cannot be read, or a mask of another size.
    """
    files = [(read_file(image, "image"), STORED, "image"), (read_file(mask, "mask"), MASK, "mask")]
    opened = []
    for content, form, name in files:
        try:
            opened.append(_opened(content, form))
        except RequestError as error:
            raise RequestError(f"{name}: {error}") from None
    marked = opened[1]
    photo = turned_to_mask(opened[0], marked.size)
    if marked.size != photo.size:
        raise RequestError(
            f"mask must be as large as the image, {photo.width} x {photo.height} pixels; "
            f"it is {marked.width} x {marked.height}."
        )
    try:
        return photo, as_pixel_mask(marked, photo.size)
    except ValueError as error:
        raise RequestError(f"{error}.") from None


def _png(image: Image.Image, recipe: Mapping[str, Any] | None) -> str:
    buffer = io.BytesIO()
    write_image(image, buffer, "PNG", recipe)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _step(progress: Progress) -> dict[str, Any]:
    run = progress.run
    return {
        "step": len(run["frames"]),
        "num_steps": run["num_steps"],
        "done": run["result"] is not None,
        "tokens": frames.tokens_after(run).tolist() if run["frames"] else [],
        "preview": run["result"] or (run["frames"][-1]["src"] if run["frames"] else ""),
        "place": run["waiting"],
        "images": [_png(image, recipe_of(run, i)) for i, image in enumerate(progress.images)],
        "recipe": run["recipe"],
    }


def _settings(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that were given, and for the others what the model's page opens with."""
    return {
        **usual_values(model),
        **{name: value for name, value in given.items() if value is not None},
    }


def with_settings(function: Callable[..., Iterator[dict]]) -> Callable[..., Iterator[dict]]:
    """A function for programs, with an argument for each of `settings.FIELDS`.

    What it raises as a RequestError reaches the program as a sentence.

    Args:
        function: a generator whose argument `values` is a dict of the settings. They take its
            place, so that what was added to a function after them is its last argument.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    place = [parameter.name for parameter in own].index("values")
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    fields = [
        inspect.Parameter(field.name, kind, default=None, annotation=field.type | None)
        for field in sorted(FIELDS, key=lambda field: field.later)
    ]
    signature = inspect.Signature(
        [*own[:place], *fields, *own[place + 1 :]], return_annotation=Iterator[dict]
    )
    names = [field.name for field in FIELDS]

    def call(*args: Any, **kwargs: Any) -> Iterator[dict]:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = {name: bound.arguments.pop(name) for name in names}
        try:
            yield from function(**bound.arguments, values=values)
        except RequestError as error:
            raise gr.Error(str(error), print_exception=False) from None

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    call.__annotations__["return"] = signature.return_annotation
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


class Page(gr.Blocks):
    """Blocks whose functions for programs take their defaults for what is left out at the end.

    Gradio fills in defaults for its own client only; who sends plain requests would be refused
    whenever a function takes one more argument.
    """

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """As Gradio's, for inputs that are complete now."""
        if block_fn.api_name in FUNCTIONS:
            parameters = list(inspect.signature(block_fn.fn).parameters.values())
            missing = [parameter.default for parameter in parameters[len(inputs) :]]
            if inspect.Parameter.empty not in missing:
                inputs.extend(missing)
        super().validate_inputs(block_fn, inputs)


class Functions:
    """What programs may call.

    Args:
        models: holds the model.
        runner: computes.
    """

    def __init__(self, models: ModelHolder, runner: Runner) -> None:
        self._models, self._runner = models, runner

    def _stream(self, request: Request) -> Iterator[dict[str, Any]]:
        # Closed at the result: what may come after it are pictures of the steps, for the page.
        with closing(follow(request, self._runner.decode)) as steps:
            for progress in steps:
                if progress.run["frames"] or progress.run["waiting"]:
                    yield _step(progress)
                if progress.images:
                    return

    # Each request is made in a call of its own: a run that waits must not keep a model in memory.

    def _generate(self, classes: Any, count: Any, seed: Any, values: dict[str, Any]) -> Request:
        model = self._models.current
        return parse_generate(model, classes, count, seed, _settings(model, values))

    def _inpaint(
        self,
        image: Any,
        mask: Any,
        box: Any,
        settings: tuple[Any, Any, Any],
        values: dict[str, Any],
    ) -> Request:
        photo, pixel_mask = read_with_mask(image, mask)
        model = self._models.current
        edit = repaint(model, photo, pixel_mask, box=box)
        class_name, count, seed = settings
        return edit_request(model, edit, class_name, count, seed, _settings(model, values))

    def _outpaint(
        self,
        image: Any,
        sides: tuple[Any, ...],
        settings: tuple[Any, Any, Any],
        values: dict[str, Any],
    ) -> Request:
        shares = {
            side: float(parse_number(side, share, 0, 1, whole=False))
            for side, share in zip(DIRECTIONS, sides, strict=True)
        }
        photo = read_image(image, "image")
        model = self._models.current
        edit = extend(model, photo, {side: share for side, share in shares.items() if share})
        class_name, count, seed = settings
        return edit_request(model, edit, class_name, count, seed, _settings(model, values))

    def generate(
        self, classes: list[str], count: int = 1, seed: int = 0, values: Any = None
    ) -> Iterator[dict]:
        """Generate images of classes, named or numbered; with several the images take turns.

        Settings that are left out are the loaded model's own, as on its page.
        Yields one object a step: step, num_steps, done, tokens (images x rows x columns; the
        number of codes where still masked), preview (all images in one WebP data URL), images
        (PNG data URLs, on the last object only), recipe, and place. While the run waits for
        others there is an object with step 0 and its place in the queue about once a second.
        """
        yield from self._stream(self._generate(classes, count, seed, values))

    def inpaint(
        self,
        image: str,
        mask: str,
        label: str = NO_CLASS,
        count: int = 1,
        seed: int = 0,
        values: Any = None,
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
        yield from self._stream(self._inpaint(image, mask, box, (label, count, seed), values))

    def outpaint(
        self,
        image: str,
        left: float = 0,
        right: float = 0,
        up: float = 0,
        down: float = 0,
        label: str = NO_CLASS,
        count: int = 1,
        seed: int = 0,
        values: Any = None,
    ) -> Iterator[dict]:
        """Carry a photo on beyond its edges; all of its pixels stay as in /inpaint.

        image is a data URL or base64 of an image file; left, right, up and down say how far, as
        shares of its width or height from 0 to 1, at least one above 0. The rest as for /inpaint;
        images are larger than the photo.
        """
        sides = (left, right, up, down)
        yield from self._stream(self._outpaint(image, sides, (label, count, seed), values))

    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return list(self._models.current.classes)

    def models(self) -> list[dict]:
        """The loaded model: its name, classes, pixels and tokens a side, and number of codes."""
        model = self._models.current
        return [
            {
                "name": str(model.name),
                "num_classes": len(model.classes),
                "image_size": int(model.image_size),
                "grid_size": int(model.grid_size),
                "codebook_size": int(model.mask_token_id),
            }
        ]


def add_api(models: ModelHolder, runner: Runner) -> None:
    """Add what `FUNCTIONS` names. Call inside the `gr.Blocks`."""
    functions = Functions(models, runner)
    shared: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": runner.concurrency}
    gr.api(with_settings(functions.generate), api_name="generate", **shared)
    gr.api(with_settings(functions.inpaint), api_name="inpaint", **shared)
    gr.api(with_settings(functions.outpaint), api_name="outpaint", **shared)
    gr.api(functions.classes, api_name="classes", queue=False)
    gr.api(functions.models, api_name="models", queue=False)
