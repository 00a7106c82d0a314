"""The How it works tab: three short steps, shown on a photo of the visitor's choice."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .controls import asset
from .edit_session import example_photos
from .messages import explain
from .models import ModelHolder
from .photos import open_photo
from .tour import tour_pictures


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

    def on_open(path: str) -> tuple[Any, Any]:
        with explain("This photo cannot be opened."):
            photo = open_photo(path)
            made = scheduler.call("tour", models, lambda: tour_pictures(models.current, photo))
            return made, True
        return gr.skip(), gr.skip()

    def on_first_visit(done: bool) -> tuple[Any, Any]:
        photos = example_photos()
        if done or not photos:
            return gr.skip(), gr.skip()
        return on_open(str(photos[-1]))

    event: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_id": "model",
        "concurrency_limit": scheduler.concurrency,
        "api_visibility": "private",
    }
    upload.upload(on_open, upload, [view, filled], **event)
    tab.select(on_first_visit, filled, [view, filled], **event)
    return filled
