"""The finished photos of the Edit tab: look at them, keep one, go on with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from demo.messages import explain
from demo.runs.edit_session import EditSession
from demo.runs.exports import file_recipe
from demo.runs.photos import PhotoStore
from demo.serving.request import Request
from demo.tabs.widgets import PRIVATE

MAX_HISTORY = 20


@dataclass(frozen=True)
class EditResults:
    """Widgets of the results.

    Args:
        files: state, paths of the finished photos; the first is the photo before.
        history: state, paths of the photos that were in use before.
        box: around all the others; out of sight until there is a result.
        choice: which variation is looked at.
        slider: before and after.
        download, reuse, back: buttons.
    """

    files: gr.State
    history: gr.State
    box: gr.Column
    choice: gr.Radio
    slider: gr.ImageSlider
    download: gr.DownloadButton
    reuse: gr.Button
    back: gr.Button

    @property
    def outputs(self) -> list[Any]:
        """What `show_results` sets, in its order."""
        return [self.files, self.box, self.choice, self.slider, self.download]


def build_results() -> EditResults:
    """Lay the results out; `wire_results` brings them to life."""
    # Out of sight, not invisible: what is not on the page loses values set as it appears.
    with gr.Column(elem_classes="away", elem_id="edit-result") as box:
        choice = gr.Radio([], label="Variation", visible="hidden", elem_id="edit-choice")
        slider = gr.ImageSlider(
            label="Before and after",
            type="pil",
            format="png",
            elem_id="edit-slider",
            interactive=False,
            buttons=[],
            max_height=420,
        )
        with gr.Row(elem_classes="actions"):
            download = gr.DownloadButton("Download PNG", elem_id="edit-download")
            reuse = gr.Button("Use as input", elem_id="edit-reuse")
            back = gr.Button("Back", elem_id="edit-back", interactive=False)
    return EditResults(gr.State([]), gr.State([]), box, choice, slider, download, reuse, back)


def show_results(
    store: PhotoStore, request: Request, images: Sequence[Image.Image]
) -> tuple[Any, ...]:
    """Keep the finished photos of an edit and show the first.

    Raises:
        RequestError: there is no room to keep them.
    """
    assert request.plan is not None
    before = store.save(request.plan.image, "before")
    paths = [
        store.save(image, f"edit-seed-{seed}", file_recipe(request.recipe, i, len(images)))
        for i, (image, seed) in enumerate(zip(images, request.seeds, strict=True))
    ]
    names = [str(i + 1) for i in range(len(paths))]
    return (
        [before, *paths],
        gr.update(elem_classes=[]),
        gr.update(choices=names, value="1", visible=True if len(names) > 1 else "hidden"),
        (before, paths[0]),
        paths[0],
    )


def wire_results(
    session: EditSession, results: EditResults, painter: gr.HTML, path: gr.State
) -> None:
    """Let the results be chosen, taken as the photo in use, and left for the one before."""

    def on_choice(name: str, files: list[str]) -> tuple[Any, Any]:
        with explain():
            path = files[int(name or 1)]
            session.store.load(path)  # says so if it is gone
            return (files[0], path), path
        return gr.skip(), gr.skip()

    def open_again(path: str, before: list[str]) -> tuple[Any, ...]:
        with explain("This photo cannot be opened."):
            return *session.open(path), before, gr.update(interactive=bool(before))
        return (gr.skip(),) * 4

    def on_reuse(
        name: str | None, files: list[str], path: str | None, before: list[str]
    ) -> tuple[Any, ...]:
        if not files:
            return (gr.skip(),) * 4
        trail = [*before, path][-MAX_HISTORY:] if path else before
        return open_again(files[int(name or 1)], trail)

    def on_back(before: list[str]) -> tuple[Any, ...]:
        return open_again(before[-1], before[:-1]) if before else (gr.skip(),) * 4

    trail = [painter, path, results.history, results.back]
    results.choice.input(
        on_choice, [results.choice, results.files], [results.slider, results.download], **PRIVATE
    )
    results.reuse.click(
        on_reuse, [results.choice, results.files, path, results.history], trail, **PRIVATE
    )
    results.back.click(on_back, results.history, trail, **PRIVATE)
