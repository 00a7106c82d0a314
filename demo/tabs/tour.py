"""The How it works tab: three short steps, shown on a photo of the visitor's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from PIL import Image

from demo.messages import explain, notice
from demo.runs.edit_session import example_photos
from demo.runs.photos import open_photo, take_upload
from demo.runs.tour import tour_pictures, tour_run
from demo.serving.decoding import Place
from demo.serving.models import ModelHolder
from demo.tabs.widgets import asset, player


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

    nothing = (gr.skip(), gr.skip(), gr.skip())

    def show(opened: Callable[[], Image.Image]) -> Iterator[tuple[Any, Any, Any]]:
        photo = None
        with explain("This photo cannot be opened."):
            photo = opened()
        if photo is not None:
            with explain():
                yield from explore(photo)
        yield nothing

    def explore(photo: Image.Image) -> Iterator[tuple[Any, Any, Any]]:
        name, told = models.name, False
        made = scheduler.watch("tour", models, lambda: tour_pictures(models.current, photo))
        for item in made:
            if not isinstance(item, Place):
                yield item, True, gr.skip()
                continue
            if item.number and not told:
                notice(f"You are number {item.number} in line.")
                told = True
            yield nothing
        for run, _ in scheduler.run(tour_run, models, name, photo):
            yield gr.skip(), gr.skip(), run

    def on_first_visit(done: bool) -> Iterator[tuple[Any, Any, Any]]:
        photos = example_photos()
        if done or not photos:
            yield nothing
        else:
            yield from show(lambda: open_photo(photos[-1]))

    event: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_id": "model",
        "concurrency_limit": scheduler.concurrency,
        "api_visibility": "private",
    }
    first = tab.select(on_first_visit, filled, [view, filled, steps], **event)
    # Before the next, as events of one cause come one after another: one player, so the visitor's
    # photo ends the example's run.
    upload.upload(None, None, None, cancels=[first], queue=False, api_visibility="private")
    upload.upload(on_open, upload, [view, filled, steps], **event)
    return filled
