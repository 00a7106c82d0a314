"""The page's functions for programs: typed, streaming, independent of the widgets.

Images travel as text: a data URL or plain base64 of a PNG, JPEG, WebP or TIFF file. An uploaded
file (what `gradio_client.handle_file` sends) is taken as well.
"""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from demo.presets import usual_values
from demo.runs import frames
from demo.runs.edit import edit_request, repaint
from demo.runs.follow import Progress, follow
from demo.runs.generate import parse_generate
from demo.runs.photos import image_from_text, open_photo, take_upload
from demo.serving.models import ModelHolder
from demo.serving.request import Request
from demo.serving.runner import Runner
from demo.settings import FIELDS, NO_CLASS, RequestError
from maskgit_core.editing.masks import drawn_mask

# All that programs may call; the page's own events have no name that is answered.
FUNCTIONS = ("generate", "inpaint", "classes", "models")


def read_image(value: Any, name: str) -> Image.Image:
    """Open an image that a program sent; RequestError names the argument."""
    try:
        if isinstance(value, dict) and value.get("path"):
            return open_photo(take_upload(value["path"]))
        return image_from_text(value)
    except RequestError as error:
        raise RequestError(f"{name}: {error}") from None


def read_mask(value: Any, size: tuple[int, int]) -> np.ndarray:
    """A mask that a program sent: bool (H, W), True where it is bright (or, with alpha, opaque)."""
    grey = drawn_mask(read_image(value, "mask"))
    if grey.size != size:
        raise RequestError(
            f"mask must be as large as the image, {size[0]} x {size[1]} pixels; "
            f"it is {grey.width} x {grey.height}."
        )
    return np.asarray(grey) > 127


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
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
        "images": [_png(image) for image in progress.images],
        "recipe": run["recipe"],
    }


def _settings(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Settings that were given, and for the others what the model's page opens with."""
    return {
        **usual_values(model),
        **{name: value for name, value in given.items() if value is not None},
    }


def with_settings(function: Callable[..., Iterator[dict]]) -> Callable[..., Iterator[dict]]:
    """A function for programs, with an argument for each of `settings.FIELDS` at its end.

    What it raises as a RequestError reaches the program as a sentence.

    Args:
        function: a generator whose last argument, `values`, is a dict of the settings.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[:-1]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    fields = [
        inspect.Parameter(field.name, kind, default=None, annotation=field.type | None)
        for field in sorted(FIELDS, key=lambda field: field.later)
    ]
    signature = inspect.Signature([*own, *fields], return_annotation=Iterator[dict])
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
        self, image: Any, mask: Any, label: Any, count: Any, seed: Any, values: dict[str, Any]
    ) -> Request:
        photo = read_image(image, "image")
        pixel_mask = read_mask(mask, photo.size)
        model = self._models.current
        edit = repaint(model, photo, pixel_mask)
        return edit_request(model, edit, label, count, seed, _settings(model, values))

    def generate(
        self, classes: list[str], count: int = 1, seed: int = 0, values: Any = None
    ) -> Iterator[dict]:
        """Generate images of classes; with several classes the images take turns.

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
    ) -> Iterator[dict]:
        """Repaint the bright part of a mask in a photo of any size; all else stays bit-identical.

        image and mask are data URLs or base64 of image files of the same size; label is a class
        or "No class". Settings as for /generate, which also yields the same objects; images are
        the size of the photo.
        """
        yield from self._stream(self._inpaint(image, mask, label, count, seed, values))

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
    """Add /generate, /inpaint, /classes and /models. Call inside the `gr.Blocks`."""
    functions = Functions(models, runner)
    shared: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": runner.concurrency}
    gr.api(with_settings(functions.generate), api_name="generate", **shared)
    gr.api(with_settings(functions.inpaint), api_name="inpaint", **shared)
    gr.api(functions.classes, api_name="classes", queue=False)
    gr.api(functions.models, api_name="models", queue=False)
