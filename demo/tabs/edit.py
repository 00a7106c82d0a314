"""The Edit tab: open a photo, paint over a part, watch it fill, keep the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.presets import model_presets
from demo.runs.edit_frame import DIRECTIONS
from demo.runs.edit_session import EXTEND, REPAINT, EditSession, Task, example_photos
from demo.runs.follow import Progress, follow
from demo.runs.frames import log_line, preview_url
from demo.runs.photos import PhotoStore, open_photo, take_upload
from demo.serving.models import ModelHolder
from demo.serving.request import Request
from demo.serving.runner import Runner
from demo.settings import AMOUNT, START_PERCENT, VARIATIONS
from demo.tabs.browser_settings import Widgets, named
from demo.tabs.edit_results import EditResults, build_results, show_results, wire_results
from demo.tabs.model_menu import ModelMenu
from demo.tabs.model_parts import ModelParts, edit_classes
from demo.tabs.widgets import (
    PRIVATE,
    advanced_settings,
    asset,
    field_values,
    go_row,
    model_event,
    picture_tiles,
    player,
    preset_radio,
    seed_row,
    slider,
    wire_stop,
)


@dataclass(frozen=True)
class EditTab:
    """What the page needs of the tab.

    Args:
        parts: what depends on the model.
        remembered: settings that outlive a reload, by name.
    """

    parts: ModelParts
    remembered: Widgets


@dataclass(frozen=True)
class PhotoWidgets:
    """The photo in use: the painter, where it is kept (state `path`), and what opens another."""

    painter: gr.HTML
    path: gr.State
    upload: gr.UploadButton
    examples: gr.HTML


@dataclass(frozen=True)
class TaskWidgets:
    """What to do with the photo: repaint or extend, with which settings."""

    mode: gr.Radio
    extend_row: gr.Row
    directions: gr.CheckboxGroup
    amount: gr.Slider
    classes: gr.Dropdown
    count: gr.Slider
    preset: gr.Radio
    seed: gr.Number
    start_percent: gr.Slider
    fields: list[gr.components.Component]
    go: gr.Button
    stop: gr.Button

    @property
    def plan(self) -> list[gr.components.Component]:
        """What a plan depends on, besides the photo and what is painted."""
        return [self.mode, self.directions, self.amount]

    @property
    def settings(self) -> list[gr.components.Component]:
        """What a request depends on, besides the plan."""
        return [self.classes, self.count, self.seed, self.start_percent, *self.fields]


def build_edit_tab(
    models: ModelHolder, store: PhotoStore, menu: ModelMenu, runner: Runner
) -> EditTab:
    """Lay the tab out and wire it. Call inside a `gr.Tab`."""
    session = EditSession(models, store)
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=1, min_width=320, elem_classes="settings"):
            photo = _photo_widgets(session)
        with gr.Column(scale=1, min_width=320, elem_classes="results"):
            task = _task_widgets(models.current)
            view = player("edit-player", "Paint over a part of the photo, then press Repaint.")
            results = build_results()
    _wire_photo(session, photo)
    _wire_plan(session, photo, task, view, menu)
    _wire_run(session, models, runner, menu, photo, task, view, results)
    wire_results(session, results, photo.painter, photo.path)
    parts = ModelParts(task.classes, task.preset, task.fields)
    more = {
        "mode": task.mode,
        "sides": task.directions,
        "amount": task.amount,
        "count": task.count,
        "seed": task.seed,
        "strength": task.start_percent,
    }
    return EditTab(parts, named("edit", parts, more))


def _photo_widgets(session: EditSession) -> PhotoWidgets:
    photos = example_photos()
    first, first_path = session.open(photos[0]) if photos else (None, None)
    # Gradio's own image editor sends its pictures to the server again at every step of every run
    # (seen in 6.31), cannot clear the mask alone, and moves masks of other sizes than its canvas.
    painter = gr.HTML(
        value=first,
        html_template=asset("painter.html"),
        css_template=asset("painter.css"),
        js_on_load="\n".join(asset(f"painter{part}.js") for part in ("_geometry", "_frame", "")),
        apply_default_css=False,
        elem_id="painter",
    )
    upload = gr.UploadButton("Open a photo", file_types=["image"], elem_id="edit-open")
    tiles = [
        {"name": path.stem.capitalize(), "src": preview_url(open_photo(path), 160)}
        for path in photos
    ]
    examples = picture_tiles("edit-examples", "Example photos", {"tiles": tiles})
    return PhotoWidgets(painter, gr.State(first_path), upload, examples)


def _task_widgets(model: Any) -> TaskWidgets:
    presets, fill = model_presets(model), edit_classes(model)
    mode = gr.Radio([REPAINT, EXTEND], value=REPAINT, label="What to do", elem_id="edit-mode")
    with gr.Row(visible=False) as extend_row:
        directions = gr.CheckboxGroup(
            [(word.capitalize(), word) for word in DIRECTIONS],
            value=["right"],
            label="Sides",
            elem_id="edit-sides",
        )
        amount = slider(AMOUNT, "edit-amount", 50, label="Extend by (%)")
    with gr.Row():
        classes = gr.Dropdown(
            fill,
            value=fill[0],
            label="Fill it with",
            info="A class, or none to let the photo decide.",
            elem_id="edit-class",
            min_width=150,
        )
        count = slider(VARIATIONS, "edit-count", 1, min_width=150)
    with gr.Accordion("Preset and seed", open=False, elem_id="edit-settings"):
        preset = preset_radio("edit", presets)
        seed = seed_row("edit")
        start = slider(START_PERCENT, "edit-strength", 0, label="Start from the photo (%)")
        guided = model.null_label is not None
        fields = advanced_settings("edit", preset, presets, guided=guided)
    go, stop = go_row("edit", "Repaint")
    return TaskWidgets(
        mode, extend_row, directions, amount, classes, count, preset, seed, start, fields, go, stop
    )


def _wire_photo(session: EditSession, photo: PhotoWidgets) -> None:
    outputs = [photo.painter, photo.path]

    def on_open(source: Any) -> tuple[Any, Any]:
        with explain("This photo cannot be opened."):
            return session.open(source)
        return gr.skip(), gr.skip()

    def on_upload(path: Any) -> tuple[Any, Any]:
        with explain("This photo cannot be opened."):
            return session.open(take_upload(path))
        return gr.skip(), gr.skip()

    def on_incoming(value: Any) -> tuple[Any, Any]:
        return on_upload((value or {}).get("incoming"))

    def on_example(value: Any) -> tuple[Any, Any]:
        chosen = str((value or {}).get("clicked", "")).casefold()
        photos = [path for path in example_photos() if path.stem.casefold() == chosen]
        return on_open(photos[0]) if photos else (gr.skip(), gr.skip())

    photo.upload.upload(on_upload, photo.upload, outputs, **PRIVATE)
    photo.painter.upload(on_incoming, photo.painter, outputs, **PRIVATE)
    photo.examples.click(on_example, photo.examples, outputs, **PRIVATE)


def _wire_plan(
    session: EditSession, photo: PhotoWidgets, task: TaskWidgets, view: gr.HTML, menu: ModelMenu
) -> None:
    """Show what an edit would decide, as soon as it changes."""

    def planned(*widgets: Any, gentle: bool) -> tuple[Any, Any]:
        painted, path, *rest = widgets
        with explain():
            preview = session.preview(Task(path, painted, *rest))
            if preview is not None:
                head, shares = preview
                return log_line({**head, "gentle": gentle}), gr.update(frame=shares)
            if rest[0] == EXTEND:
                return gr.skip(), gr.update(frame=None)
            return log_line({"forget": "preview"}), gr.update(frame=None)
        return gr.skip(), gr.skip()

    def on_plan(*widgets: Any) -> tuple[Any, Any]:
        return planned(*widgets, gentle=False)

    def on_switched(*widgets: Any) -> tuple[Any, Any]:
        # What another model would decide; a result that is shown may stay.
        return planned(*widgets, gentle=True)

    event: dict[str, Any] = {
        "inputs": [photo.painter, photo.path, *task.plan],
        "outputs": [view, photo.painter],
        "trigger_mode": "always_last",
        **PRIVATE,
    }
    changes = [photo.painter.change, task.directions.input, task.amount.release]
    gr.on(changes, on_plan, **event)
    menu.shown.change(on_switched, **event)
    task.mode.change(
        lambda name: (
            gr.update(visible=name == EXTEND),
            gr.update(value="Extend" if name == EXTEND else "Repaint"),
        ),
        task.mode,
        [task.extend_row, task.go],
        queue=False,
        **PRIVATE,
    ).then(on_plan, **event)


def _wire_run(
    session: EditSession,
    models: ModelHolder,
    runner: Runner,
    menu: ModelMenu,
    photo: PhotoWidgets,
    task: TaskWidgets,
    view: gr.HTML,
    results: EditResults,
) -> None:
    def parse(shown: str, widgets: tuple[Any, ...]) -> Request:
        # A call of its own: a run that waits must not keep the model in memory.
        painted, path, mode, sides, amount, label, number, first_seed, percent, *fields = widgets
        return session.request(
            models.expect(shown),
            Task(path, painted, mode, sides, amount),
            label,
            number,
            first_seed,
            field_values(fields),
            percent,
        )

    def on_run(shown: str, *widgets: Any) -> Iterator[tuple[Any, ...]]:
        nothing = (gr.skip(),) * len(results.outputs)
        with explain():
            request = parse(shown, widgets)
            before: Progress | None = None
            for progress in follow(request, runner.decode):
                new = bool(progress.images) and not (before and before.images)
                files = show_results(session.store, request, progress.images) if new else nothing
                yield progress.log, gr.update(interactive=True), *files
                before = progress
        yield gr.skip(), gr.update(interactive=False), *nothing

    event = task.go.click(
        on_run,
        [menu.shown, photo.painter, photo.path, *task.plan, *task.settings],
        [view, task.stop, *results.outputs],
        **model_event(runner),
    )
    wire_stop(task.stop, "edit-player", event)
