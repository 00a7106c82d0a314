"""The How it works tab: three short steps, shown on a photo of the visitor's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from PIL import Image

from .controls import asset, player
from .edit_session import example_photos
from .messages import explain
from .models import ModelHolder
from .photos import open_photo, take_upload
from .tour import tour_pictures, tour_run


def build_tour_tab(tab: gr.Tab, models: ModelHolder, scheduler: Any) -> gr.State:
    """Lay the tab out and wire it; returns whether it has its pictures. Call inside `tab`."""
    filled = gr.State(False)
    upload = gr.UploadButton(
        "Try it with a photo of yours", file_types=["image"], elem_id="tour-open"
    )
    view = gr.HTML(
        value=None,
        html_template=asset("tour.html"),
        css_template=asset("tour.css"),
        js_on_load=asset("tour.js"),
        apply_default_css=False,
        elem_id="tour",
    )

    steps = player("tour-player", "Here the model will fill in the hidden cells.")

    def on_open(path: str) -> Iterator[tuple[Any, Any, Any]]:
        yield from show(lambda: open_photo(take_upload(path)))

    def show(opened: Callable[[], Image.Image]) -> Iterator[tuple[Any, Any, Any]]:
        with explain("This photo cannot be opened."):
            name, photo = models.current.name, opened()
            made = scheduler.call("tour", models, lambda: tour_pictures(models.current, photo))
            yield made, True, gr.skip()
            for run, _ in scheduler.run(tour_run, models, name, photo):
                yield gr.skip(), gr.skip(), run
        yield gr.skip(), gr.skip(), gr.skip()

    def on_first_visit(done: bool) -> Iterator[tuple[Any, Any, Any]]:
        photos = example_photos()
        if done or not photos:
            yield gr.skip(), gr.skip(), gr.skip()
        else:
            yield from show(lambda: open_photo(photos[-1]))

    event: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_id": "model",
        "concurrency_limit": scheduler.concurrency,
        "api_visibility": "private",
    }
    upload.upload(on_open, upload, [view, filled, steps], **event)
    tab.select(on_first_visit, filled, [view, filled, steps], **event)
    return filled
