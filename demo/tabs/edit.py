"""The Edit tab: open a photo, paint over a part, watch it fill, keep the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.runs import edit, exports
from demo.runs.edit_frame import DIRECTIONS, MAX_VARIATIONS
from demo.runs.edit_session import EXTEND, REPAINT, EditSession, example_photos
from demo.runs.frames import preview_url
from demo.runs.photos import PhotoStore, open_photo, take_upload
from demo.serving.models import ModelHolder
from demo.settings import model_presets
from demo.tabs.browser_settings import Widgets, named
from demo.tabs.model_menu import ModelMenu, ModelParts, edit_classes
from demo.tabs.widgets import (
    advanced_fold,
    asset,
    field_values,
    picture_tiles,
    player,
    preset_radio,
    seed_row,
    stop_js,
)

MAX_HISTORY = 20


@dataclass(frozen=True)
class EditTab:
    """What the page needs of the tab.

    Args:
        parts: what depends on the model.
        remembered: settings that outlive a reload, by name.
    """

    parts: ModelParts
    remembered: Widgets


def _painter(value: dict[str, Any] | None) -> gr.HTML:
    """The photo with a mask to paint.

    Gradio's own image editor sends its pictures to the server again at every step of every run
    (seen in 6.31), cannot clear the mask alone, and moves masks of other sizes than its canvas.
    """
    return gr.HTML(
        value=value,
        html_template=asset("painter.html"),
        css_template=asset("painter.css"),
        js_on_load=asset("painter_frame.js") + asset("painter.js"),
        apply_default_css=False,
        elem_id="painter",
    )


def _example_tiles(photos: list[Path]) -> dict[str, Any]:
    return {
        "tiles": [
            {"name": path.stem.capitalize(), "src": preview_url(open_photo(path), 160)}
            for path in photos
        ]
    }


def build_edit_tab(
    models: ModelHolder, store: PhotoStore, menu: ModelMenu, scheduler: Any
) -> EditTab:
    """Lay the tab out and wire it. Call inside a `gr.Tab`."""
    model = models.current
    presets, guided = model_presets(model), model.null_label is not None
    fill = edit_classes(model)
    del model  # the page must not keep it in memory
    session = EditSession(models, store)
    photos = example_photos()
    first, first_path = session.open(photos[0]) if photos else (None, None)
    kept = gr.State(first_path)
    results = gr.State([])
    history = gr.State([])
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=1, min_width=320, elem_classes="settings"):
            painter = _painter(first)
            upload = gr.UploadButton("Open a photo", file_types=["image"], elem_id="edit-open")
            examples = picture_tiles("edit-examples", "Example photos", _example_tiles(photos))
        with gr.Column(scale=1, min_width=320, elem_classes="results"):
            mode = gr.Radio(
                [REPAINT, EXTEND], value=REPAINT, label="What to do", elem_id="edit-mode"
            )
            with gr.Row(visible=False) as extend_row:
                directions = gr.CheckboxGroup(
                    [(word.capitalize(), word) for word in DIRECTIONS],
                    value=["right"],
                    label="Sides",
                    elem_id="edit-sides",
                )
                amount = gr.Slider(
                    10,
                    100,
                    value=50,
                    step=5,
                    label="Extend by (%)",
                    elem_id="edit-amount",
                    buttons=[],
                )
            with gr.Row():
                class_name = gr.Dropdown(
                    fill,
                    value=fill[0],
                    label="Fill it with",
                    info="A class, or none to let the photo decide.",
                    elem_id="edit-class",
                    min_width=150,
                )
                count = gr.Slider(
                    1,
                    MAX_VARIATIONS,
                    value=1,
                    step=1,
                    label="Variations",
                    elem_id="edit-count",
                    buttons=[],
                    min_width=150,
                )
            with gr.Accordion("Preset and seed", open=False, elem_id="edit-settings"):
                preset = preset_radio("edit", presets)
                seed = seed_row("edit")
                strength = gr.Slider(
                    0,
                    90,
                    value=0,
                    step=5,
                    label="Start from the photo (%)",
                    info="How many of the hidden cells start as they are in the photo. Above 0, "
                    "what you painted over can show through.",
                    elem_id="edit-strength",
                    buttons=[],
                )
                fields = advanced_fold("edit", preset, presets, guided=guided)
            with gr.Row(elem_classes="actions go-row"):
                go = gr.Button("Repaint", variant="primary", elem_id="edit-go", scale=3)
                stop = gr.Button("Stop", interactive=False, elem_id="edit-stop", scale=1)
            view = player("edit-player", "Paint over a part of the photo, then press Repaint.")
            # Out of sight, not invisible: what is not on the page loses values set as it appears.
            with gr.Column(elem_classes="away", elem_id="edit-result") as result_box:
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

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

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
        wanted = str((value or {}).get("clicked", "")).casefold()
        found = [path for path in photos if path.stem.casefold() == wanted]
        return on_open(found[0]) if found else (gr.skip(), gr.skip())

    upload.upload(on_upload, upload, [painter, kept], **private)
    painter.upload(on_incoming, painter, [painter, kept], **private)
    examples.click(on_example, examples, [painter, kept], **private)

    def on_plan(
        value: Any, path: str | None, task: str, sides: list[str], percent: float
    ) -> tuple[Any, Any]:
        with explain():
            if task == EXTEND:
                shown = session.preview_extend(path, sides, percent)
                return shown or gr.skip(), gr.update(frame=None)
            found = session.preview(value, path)
            if found is not None:
                return found[0], gr.update(frame=found[1])
            return {"forget": "preview"}, gr.update(frame=None)
        return gr.skip(), gr.skip()

    def on_switched(*arguments: Any) -> tuple[Any, Any]:
        # What another model would decide; a result that is shown may stay.
        shown, moved = on_plan(*arguments)
        return ({**shown, "gentle": True} if "kind" in shown else shown), moved

    planned: dict[str, Any] = {
        "inputs": [painter, kept, mode, directions, amount],
        "outputs": [view, painter],
        "trigger_mode": "always_last",
        **private,
    }
    gr.on([painter.change, directions.input, amount.release], on_plan, **planned)
    menu.shown.change(on_switched, **planned)
    mode.change(
        lambda name: (
            gr.update(visible=name == EXTEND),
            gr.update(value="Extend" if name == EXTEND else "Repaint"),
        ),
        mode,
        [extend_row, go],
        queue=False,
        **private,
    ).then(on_plan, **planned)

    def on_run(
        shown: str,
        value: Any,
        path: str | None,
        task: str,
        sides: list[str],
        percent: float,
        name: str,
        number: float,
        first_seed: float,
        start_percent: float,
        *values: Any,
    ) -> Iterator[tuple[Any, ...]]:
        nothing = (gr.skip(),) * 5
        with explain():
            request = EditSession(models.expect(shown), store).request(
                value,
                path,
                task,
                sides,
                percent,
                name,
                number,
                first_seed,
                field_values(values),
                start_percent,
            )
            kept_results: list[dict[str, Any]] = []
            for run, images in scheduler.run(edit.edit_run, models, shown, request):
                if not images or kept_results:
                    yield run, gr.update(interactive=True), *nothing
                    continue
                kept_results = [
                    {
                        "path": store.save(
                            image, f"edit-seed-{request.seed + i}", exports.recipe_of(run, i)
                        ),
                        "before": store.save(request.plan.image, "before") if i == 0 else None,
                    }
                    for i, image in enumerate(images)
                ]
                names = [str(i + 1) for i in range(len(images))]
                yield (
                    run,
                    gr.update(interactive=True),
                    kept_results,
                    gr.update(elem_classes=[]),
                    gr.update(
                        choices=names, value="1", visible=True if len(names) > 1 else "hidden"
                    ),
                    (kept_results[0]["before"], kept_results[0]["path"]),
                    kept_results[0]["path"],
                )
        yield gr.skip(), gr.update(interactive=False), *nothing

    event = go.click(
        on_run,
        [menu.shown, painter, kept, mode, directions, amount, class_name, count, seed]
        + [strength, *fields],
        [view, stop, results, result_box, choice, slider, download],
        concurrency_id="model",
        concurrency_limit=scheduler.concurrency,
        **private,
    )
    stop.click(
        lambda: gr.update(interactive=False),
        None,
        stop,
        js=stop_js("edit-player"),
        cancels=[event],
        queue=False,
        api_visibility="private",
    )

    def on_choice(name: str, made: list[dict[str, Any]]) -> tuple[Any, Any]:
        index = int(name or 1) - 1
        with explain():
            path = made[index]["path"]
            store.load(path)  # says so if it is gone
            return (made[0]["before"], path), path
        return gr.skip(), gr.skip()

    choice.input(on_choice, [choice, results], [slider, download], **private)

    def on_reuse(
        name: str | None, made: list[dict[str, Any]], path: str | None, before: list[str]
    ) -> tuple[Any, ...]:
        if not made:
            return (gr.skip(),) * 4
        shown, new_path = on_open(made[int(name or 1) - 1]["path"])
        opened = isinstance(new_path, str)
        trail = [*before, path][-MAX_HISTORY:] if path and opened else before
        return shown, new_path, trail, gr.update(interactive=bool(trail))

    def on_back(before: list[str]) -> tuple[Any, ...]:
        if not before:
            return (gr.skip(),) * 4
        shown, path = on_open(before[-1])
        return shown, path, before[:-1], gr.update(interactive=len(before) > 1)

    trail = [painter, kept, history, back]
    reuse.click(on_reuse, [choice, results, kept, history], trail, **private)
    back.click(on_back, history, trail, **private)
    parts = ModelParts(class_name, preset, fields)
    more = {"mode": mode, "sides": directions, "amount": amount, "count": count, "seed": seed}
    return EditTab(parts, named("edit", parts, {**more, "strength": strength}))
