"""The Edit tab: open a photo, paint over a part, watch it fill, keep the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from . import edits
from .controls import advanced_fold, asset, field_values, player, preset_radio, seed_row
from .messages import explain
from .photos import (
    BRUSH_ALPHA,
    BRUSH_RGB,
    EDITOR_SIDE,
    PhotoStore,
    editor_value,
    mask_for_photo,
    open_photo,
    painted_square,
    same_picture,
)
from .settings import NO_CLASS

EXAMPLES = Path(__file__).parent / "examples"
REPAINT = "Repaint what I mark"
EXTEND = "Extend beyond the edges"


def example_photos() -> list[Path]:
    """The photos that ship with the page."""
    return sorted(EXAMPLES.glob("*.jpg"))


class EditSession:
    """What the tab's events do, free of widgets: photos in, editor values and runs out."""

    def __init__(self, model: Any, store: PhotoStore) -> None:
        self.model = model
        self.store = store

    def open(self, source: Any) -> tuple[dict[str, Any], str]:
        """Take a photo in: the editor's new value, and where the photo is kept."""
        photo = open_photo(source)
        return editor_value(photo), self.store.save(photo)

    def holds(self, background: Image.Image, kept: str | None) -> bool:
        """Whether this background of the editor shows the photo that is kept."""
        return kept is not None and same_picture(background, self.store.load(kept))

    def photo_of(self, value: dict[str, Any] | None, kept: str | None) -> Image.Image | None:
        """The photo that the editor shows, at its own size.

        The kept one, unless the editor holds another picture (pasted there, or sent by a caller).
        """
        background = (value or {}).get("background")
        if background is None:
            return None
        if self.holds(background, kept):
            return self.store.load(kept)
        return open_photo(background)

    def mask_of(self, value: dict[str, Any] | None, photo: Image.Image) -> np.ndarray | None:
        """What was painted, at the photo's size: bool (H, W), or None."""
        painted = painted_square(value)
        if painted is None or not painted.any():
            return None
        if painted.shape == (EDITOR_SIDE, EDITOR_SIDE):
            return mask_for_photo(painted, photo.size)
        exact = Image.fromarray(painted).resize(photo.size, Image.Resampling.NEAREST)
        return np.asarray(exact)

    def request(
        self,
        value: dict[str, Any] | None,
        kept: str | None,
        mode: str,
        directions: list[str],
        amount: float,
        class_name: str,
        count: float,
        seed: float,
        values: dict[str, Any],
    ) -> edits.EditRequest:
        """Check all that the tab holds; RequestError says what to change."""
        photo = self.photo_of(value, kept)
        if mode == EXTEND:
            return edits.parse_extend(
                self.model, photo, directions, amount, class_name, count, seed, values
            )
        mask = None if photo is None else self.mask_of(value, photo)
        return edits.parse_edit(self.model, photo, mask, class_name, count, seed, values)


def _editor() -> gr.ImageEditor:
    red, green, blue = BRUSH_RGB
    photos = example_photos()
    first = editor_value(open_photo(photos[0])) if photos else None
    return gr.ImageEditor(
        value=first,
        type="pil",
        format="png",
        image_mode="RGBA",
        sources=("upload", "clipboard"),
        transforms=(),
        layers=False,
        brush=gr.Brush(
            default_size=48,
            colors=[(f"#{red:02x}{green:02x}{blue:02x}", BRUSH_ALPHA / 255)],
            color_mode="fixed",
        ),
        eraser=gr.Eraser(default_size=48),
        canvas_size=(EDITOR_SIDE, EDITOR_SIDE),
        fixed_canvas=True,
        height=520,
        show_label=False,
        elem_id="editor",
        buttons=[],
    )


def _gallery(photos: list[Path]) -> gr.Gallery:
    return gr.Gallery(
        [(str(path), path.stem.capitalize()) for path in photos],
        label="Examples",
        show_label=False,
        columns=3,
        height=150,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        elem_id="edit-examples",
        buttons=[],
    )


def build_edit_tab(tab: gr.Tab, model: Any, store: PhotoStore) -> None:
    """Lay the tab out and wire it. Call inside `tab`."""
    session = EditSession(model, store)
    photos = example_photos()
    kept = gr.State(store.save(open_photo(photos[0])) if photos else None)
    results = gr.State([])
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=1, min_width=320, elem_classes="settings"):
            editor = _editor()
            with gr.Row(elem_classes="actions tools"):
                upload = gr.UploadButton("Open a photo", file_types=["image"], elem_id="edit-open")
                clear = gr.Button("Clear mask", elem_id="edit-clear")
                invert = gr.Button("Invert", elem_id="edit-invert")
                fill = gr.Button("Mark all", elem_id="edit-all")
            gallery = _gallery(photos)
            preset = preset_radio("edit")
            seed = seed_row("edit")
            fields = advanced_fold("edit", preset)
        with gr.Column(scale=1, min_width=320, elem_classes="results"):
            mode = gr.Radio(
                [REPAINT, EXTEND], value=REPAINT, label="What to do", elem_id="edit-mode"
            )
            with gr.Row(visible=False) as extend_row:
                directions = gr.CheckboxGroup(
                    [(word.capitalize(), word) for word in edits.DIRECTIONS],
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
                    [NO_CLASS, *model.classes],
                    value=NO_CLASS,
                    label="Fill it with",
                    info="A class, or none to let the photo decide.",
                    elem_id="edit-class",
                    min_width=150,
                )
                count = gr.Slider(
                    1,
                    edits.MAX_VARIATIONS,
                    value=1,
                    step=1,
                    label="Variations",
                    elem_id="edit-count",
                    buttons=[],
                    min_width=150,
                )
            with gr.Row(elem_classes="actions"):
                go = gr.Button("Repaint", variant="primary", elem_id="edit-go", scale=3)
                stop = gr.Button("Stop", interactive=False, elem_id="edit-stop", scale=1)
            view = player("edit-player", "Paint over a part of the photo, then press Repaint.")
            with gr.Column(visible=False, elem_id="edit-result") as result_box:
                choice = gr.Radio([], label="Variation", visible=False, elem_id="edit-choice")
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

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    def on_open(source: Any) -> tuple[Any, Any]:
        with explain("This photo cannot be opened."):
            return session.open(source)
        return gr.skip(), gr.skip()

    def on_editor_upload(value: dict[str, Any] | None, path: str | None) -> tuple[Any, Any]:
        background = (value or {}).get("background")
        # The editor also says "upload" at the first stroke on a photo that was put there.
        if background is None or session.holds(background, path):
            return gr.skip(), gr.skip()
        return on_open(background)

    def on_example(event: gr.SelectData) -> tuple[Any, Any]:
        return on_open(photos[event.index])

    upload.upload(on_open, upload, [editor, kept], **private)
    editor.upload(on_editor_upload, [editor, kept], [editor, kept], **private)
    gallery.select(on_example, None, [editor, kept], **private)

    def on_mask(change: str) -> Any:
        def handler(value: dict[str, Any] | None, path: str | None) -> Any:
            with explain():
                photo = session.photo_of(value, path)
                if photo is None:
                    return gr.skip()
                painted = painted_square(value)
                empty = np.zeros((EDITOR_SIDE, EDITOR_SIDE), dtype=bool)
                if change == "clear" or painted is None or painted.shape != empty.shape:
                    painted = empty
                new = {"clear": empty, "invert": ~painted, "all": ~empty}[change]
                return editor_value(photo, new)
            return gr.skip()

        return handler

    for button, change in ((clear, "clear"), (invert, "invert"), (fill, "all")):
        button.click(on_mask(change), [editor, kept], editor, **private)

    def on_painted(value: dict[str, Any] | None, path: str | None) -> Any:
        with explain():
            photo = session.photo_of(value, path)
            mask = None if photo is None else session.mask_of(value, photo)
            if mask is not None and mask.any():
                return edits.preview_edit(model, photo, mask)
        return gr.skip()

    # Gradio 6.31 does not report the first stroke as a change, so a helper reports every one.
    strokes = gr.HTML(
        html_template="<span></span>",
        js_on_load=asset("strokes.js"),
        visible="hidden",
        elem_id="edit-strokes",
    )
    strokes.click(
        on_painted,
        [editor, kept],
        view,
        trigger_mode="always_last",
        concurrency_limit=1,
        **private,
    )
    # Laid out while its tab was hidden, the editor would show the photo off centre.
    tab.select(None, None, None, js="() => setTimeout(() => dispatchEvent(new Event('resize')))")

    mode.change(
        lambda name: (
            gr.update(visible=name == EXTEND),
            gr.update(value="Extend" if name == EXTEND else "Repaint"),
        ),
        mode,
        [extend_row, go],
        queue=False,
        **private,
    )

    def on_run(
        value: dict[str, Any] | None,
        path: str | None,
        task: str,
        sides: list[str],
        percent: float,
        name: str,
        number: float,
        first_seed: float,
        *values: Any,
    ) -> Iterator[tuple[Any, ...]]:
        nothing = (gr.skip(),) * 5
        with explain():
            request = session.request(
                value, path, task, sides, percent, name, number, first_seed, field_values(values)
            )
            for run, images in edits.edit_run(model, request):
                if not images:
                    yield run, gr.update(interactive=True), *nothing
                    continue
                kept_results = [
                    {
                        "path": store.save(image, f"edit-seed-{request.seed + i}"),
                        "before": store.save(request.plan.image, "before") if i == 0 else None,
                    }
                    for i, image in enumerate(images)
                ]
                names = [str(i + 1) for i in range(len(images))]
                yield (
                    run,
                    gr.update(interactive=False),
                    kept_results,
                    gr.update(visible=True),
                    gr.update(choices=names, value="1", visible=len(names) > 1),
                    (request.plan.image, images[0]),
                    kept_results[0]["path"],
                )
        yield gr.skip(), gr.update(interactive=False), *nothing

    event = go.click(
        on_run,
        [editor, kept, mode, directions, amount, class_name, count, seed, *fields],
        [view, stop, results, result_box, choice, slider, download],
        concurrency_id="model",
        concurrency_limit=1,
        **private,
    )
    stop.click(
        lambda: gr.update(interactive=False),
        None,
        stop,
        cancels=[event],
        queue=False,
        api_visibility="private",
    )

    def on_choice(name: str, made: list[dict[str, Any]]) -> tuple[Any, Any]:
        index = int(name or 1) - 1
        with explain():
            before = store.load(made[0]["before"])
            return (before, store.load(made[index]["path"])), made[index]["path"]
        return gr.skip(), gr.skip()

    choice.input(on_choice, [choice, results], [slider, download], **private)

    def on_reuse(name: str | None, made: list[dict[str, Any]]) -> tuple[Any, Any]:
        if not made:
            return gr.skip(), gr.skip()
        return on_open(made[int(name or 1) - 1]["path"])

    reuse.click(on_reuse, [choice, results], [editor, kept], **private)
