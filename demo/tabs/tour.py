"""The How it works tab: three short steps, shown on a photo of the visitor's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from PIL import Image

from demo.messages import explain, notice
from demo.runs.edit_session import example_photos
from demo.runs.follow import follow
from demo.runs.photos import open_photo, take_upload
from demo.runs.tour import tour_pictures, tour_request
from demo.serving.models import ModelHolder
from demo.serving.runner import Runner
from demo.serving.steps import Place
from demo.tabs.widgets import asset, model_event, player

Shown = Iterator[tuple[Any, Any, Any]]  # the pictures, whether they are there, the player
NOTHING = (gr.skip(), gr.skip(), gr.skip())


def build_tour_tab(tab: gr.Tab, models: ModelHolder, runner: Runner) -> gr.State:
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

    def on_open(path: str) -> Shown:
        yield from _show(models, runner, lambda: open_photo(take_upload(path)))

    def on_first_visit(done: bool) -> Shown:
        photos = example_photos()
        if done or not photos:
            yield NOTHING
        else:
            yield from _show(models, runner, lambda: open_photo(photos[-1]))

    event = model_event(runner)
    first = tab.select(on_first_visit, filled, [view, filled, steps], **event)
    # Before the next, as events of one cause come one after another: one player, so the visitor's
    # photo ends the example's run.
    upload.upload(None, None, None, cancels=[first], queue=False, api_visibility="private")
    upload.upload(on_open, upload, [view, filled, steps], **event)
    return filled


def _show(models: ModelHolder, runner: Runner, opened: Callable[[], Image.Image]) -> Shown:
    """Explain a photo; what goes wrong is said on the page."""
    photo = None
    with explain("This photo cannot be opened."):
        photo = opened()
    if photo is not None:
        with explain():
            yield from _explore(models, runner, photo)
    yield NOTHING


def _explore(models: ModelHolder, runner: Runner, photo: Image.Image) -> Shown:
    said = False
    for item in runner.watch("tour", lambda: tour_pictures(models.current, photo)):
        if not isinstance(item, Place):
            yield item, True, gr.skip()
            continue
        if item.number and not said:
            notice(f"You are number {item.number} in line.")
            said = True
        yield NOTHING
    for progress in follow(tour_request(models.current, photo), runner.decode):
        yield gr.skip(), gr.skip(), progress.log
