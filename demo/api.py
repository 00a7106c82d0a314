"""The page's functions for programs: typed, streaming, independent of the widgets.

Images travel as text: a data URL or plain base64 of a PNG, JPEG, WebP or TIFF file. An uploaded
file (what `gradio_client.handle_file` sends) is taken as well.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from demo.runs import edit, frames
from demo.runs.generate import generate_run, model_name, parse_generate
from demo.runs.photos import image_from_text, open_photo, take_upload
from demo.serving.models import ModelHolder
from demo.settings import NO_CLASS, RequestError, usual_values
from maskgit_core.editing.masks import drawn_mask

Runs = Generator[tuple[dict[str, Any], list[Image.Image]], None, None]

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


def _settings(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Settings that were given, and for the others what the model's page opens with."""
    return {
        **usual_values(model),
        **{name: value for name, value in given.items() if value is not None},
    }


def _plain_errors(function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def run(*args: Any) -> Iterator[Any]:
        try:
            yield from function(*args)
        except RequestError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return run


def add_api(holder: ModelHolder, scheduler: Any) -> None:
    """Add /generate, /inpaint, /classes and /models. Call inside the `gr.Blocks`."""
    _generate = _plain_errors(lambda *args: _generate_steps(holder, scheduler, *args))
    _inpaint = _plain_errors(lambda *args: _inpaint_steps(holder, scheduler, *args))

    def generate(
        classes: list[str],
        count: int = 1,
        seed: int = 0,
        num_steps: int | None = None,
        order: str | None = None,
        schedule: str | None = None,
        guidance_scale: float | None = None,
        guidance_schedule: str | None = None,
        temperature: float | None = None,
        choice_temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Iterator[dict]:
        """Generate images of classes; with several classes the images take turns.

        Settings that are left out are the loaded model's own, as on its page.
        Yields one object a step: step, num_steps, done, tokens (images x rows x columns; the
        number of codes where still masked), preview (all images in one WebP data URL), images
        (PNG data URLs, on the last object only), recipe, and place. While the run waits for
        others there is an object with step 0 and its place in line about once a second.
        """
        yield from _generate(
            classes,
            count,
            seed,
            dict(
                num_steps=num_steps,
                order=order,
                schedule=schedule,
                guidance_scale=guidance_scale,
                guidance_schedule=guidance_schedule,
                temperature=temperature,
                choice_temperature=choice_temperature,
                top_k=top_k,
                top_p=top_p,
            ),
        )

    def inpaint(
        image: str,
        mask: str,
        label: str = NO_CLASS,
        count: int = 1,
        seed: int = 0,
        num_steps: int | None = None,
        order: str | None = None,
        schedule: str | None = None,
        guidance_scale: float | None = None,
        guidance_schedule: str | None = None,
        temperature: float | None = None,
        choice_temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Iterator[dict]:
        """Repaint the bright part of a mask in a photo of any size; all else stays bit-identical.

        image and mask are data URLs or base64 of image files of the same size; label is a class
        or "No class". Settings as for /generate, which also yields the same objects; images are
        the size of the photo.
        """
        yield from _inpaint(
            image,
            mask,
            label,
            count,
            seed,
            dict(
                num_steps=num_steps,
                order=order,
                schedule=schedule,
                guidance_scale=guidance_scale,
                guidance_schedule=guidance_schedule,
                temperature=temperature,
                choice_temperature=choice_temperature,
                top_k=top_k,
                top_p=top_p,
            ),
        )

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
    gr.api(classes, api_name="classes", queue=False)
    gr.api(models, api_name="models", queue=False)


def _stream(runs: Runs) -> Iterator[dict[str, Any]]:
    # Closed at the result: what may come after it are pictures of the steps, for the page.
    with closing(runs):
        for run, results in runs:
            if run["frames"] or run["waiting"]:
                yield _step(run, [_png(result) for result in results])
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


def _inpaint_steps(
    models: ModelHolder,
    scheduler: Any,
    image: Any,
    mask: Any,
    label: Any,
    count: Any,
    seed: Any,
    values: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    photo = read_image(image, "image")
    pixel_mask = read_mask(mask, photo.size)
    model = models.current
    name, values = model.name, _settings(model, values)
    request = edit.parse_edit(model, photo, pixel_mask, label, count, seed, values)
    del model  # a run that waits must not keep it in memory
    yield from _stream(scheduler.run(edit.edit_run, models, name, request))
