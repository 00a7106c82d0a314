"""The Keep it accordion: what a visitor takes home from the images on the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from demo.messages import explain
from demo.runs import exports
from demo.runs.photos import PhotoStore
from demo.tabs.widgets import PRIVATE, unseen

SPEEDS = [("Slow", 0.8), ("Normal", 0.4), ("Fast", 0.15)]


@dataclass(frozen=True)
class KeepWidgets:
    """Widgets of the accordion.

    Args:
        image, strip, recipe, animation: buttons that make a file.
        options: kind, speed and outlines of the animation.
        file: hands the file to the browser.
        link, copy: the link to the settings, and the button that makes it.
        load: opens a recipe.
        dropped: unseen; its value is {path} of a recipe that was dropped on the page.
    """

    image: gr.Button
    strip: gr.Button
    recipe: gr.Button
    animation: gr.Button
    options: list[gr.components.Component]
    file: gr.DownloadButton
    link: gr.Textbox
    copy: gr.Button
    load: gr.UploadButton
    dropped: gr.HTML


def build_keep() -> KeepWidgets:
    """Lay the accordion out; `wire_keep` brings it to life. Call inside the tab."""
    with gr.Accordion("Keep it", open=False, elem_id="gen-keep"):
        with gr.Row(elem_classes="actions tools"):
            image = gr.Button("Images (PNG)", elem_id="gen-save-image")
            strip = gr.Button("Film strip (PNG)", elem_id="gen-save-strip")
            recipe = gr.Button("Recipe (JSON)", elem_id="gen-save-recipe")
        with gr.Row(elem_classes="seed-row"):
            kind = gr.Dropdown(
                [("WebP", "webp"), ("GIF", "gif")],
                value="webp",
                label="Animation",
                min_width=90,
                elem_id="gen-kind",
            )
            speed = gr.Dropdown(SPEEDS, value=0.4, label="Speed", min_width=90, elem_id="gen-speed")
            lines = gr.Checkbox(True, label="Outline new cells", min_width=140, elem_id="gen-lines")
            animation = gr.Button("Animation", min_width=110, elem_id="gen-save-animation")
        with gr.Row(elem_classes="seed-row"):
            link = gr.Textbox(
                label="Link to these settings",
                interactive=False,
                placeholder="Press Copy link",
                elem_id="gen-link",
                scale=3,
                min_width=160,
            )
            copy = gr.Button("Copy link", min_width=100, scale=1, elem_id="gen-copy")
        load = gr.UploadButton(
            "Open a recipe, or drop one here",
            file_types=[".json"],
            elem_id="gen-open-recipe",
        )
    file = gr.DownloadButton("File", visible="hidden", elem_id="gen-file")
    dropped = unseen("gen-dropped-recipe", "recipe_drop.js")
    options: list[gr.components.Component] = [kind, speed, lines]
    return KeepWidgets(image, strip, recipe, animation, options, file, link, copy, load, dropped)


def wire_keep(
    store: PhotoStore, widgets: KeepWidgets, run_state: gr.State, final_state: gr.State
) -> None:
    """Let the buttons make their files of the run and the finished images on the page."""

    def saver(make: Callable[..., str]) -> Callable[..., str | None]:
        def handler(run: Any, *more: Any) -> str | None:
            with explain():
                return make(store, exports.require_run(run), *more)
            return None

        return handler

    makers: list[tuple[gr.Button, Callable[..., str], list[Any]]] = [
        (widgets.image, _save_image, [final_state]),
        (widgets.strip, _save_strip, []),
        (widgets.recipe, _save_recipe, []),
        (widgets.animation, _save_animation, [final_state, *widgets.options]),
    ]
    for button, make, more in makers:
        button.click(saver(make), [run_state, *more], widgets.file, **PRIVATE).then(
            None,
            widgets.file,
            None,
            js="(file) => { if (file) setTimeout(() => document.querySelector("
            "'#gen-file a, a#gen-file, #gen-file')?.click(), 150); }",
            api_visibility="private",
        )


def _save_image(
    store: PhotoStore, run: dict[str, Any], images: Sequence[Image.Image] | None
) -> str:
    if not images:
        last = exports.step_images(run, len(run["frames"]))
        images = [Image.fromarray(picture) for picture in last]
    sheet = exports.result_sheet(list(images), run["sheet_columns"])
    return store.save(sheet, _stem(run), exports.recipe_of(run))


def _save_strip(store: PhotoStore, run: dict[str, Any]) -> str:
    return store.save(exports.film_strip(run), _stem(run) + "-steps", exports.recipe_of(run))


def _save_recipe(store: PhotoStore, run: dict[str, Any]) -> str:
    text = exports.recipe_text(run)
    return store.write(lambda path: path.write_text(text, "utf-8"), _stem(run), "json")


def _save_animation(
    store: PhotoStore,
    run: dict[str, Any],
    images: Sequence[Image.Image] | None,
    kind: str,
    speed: float,
    lines: bool,
) -> str:
    final = np.stack([np.asarray(image) for image in images]) if images else None
    pictures = exports.animation_frames(run, grid_lines=lines, final=final)
    options: dict[str, Any] = {"kind": kind, "seconds_per_step": speed}
    return store.write(
        lambda path: exports.write_animation(
            path, pictures, recipe=exports.recipe_of(run), **options
        ),
        _stem(run),
        kind,
    )


def _stem(run: dict[str, Any]) -> str:
    """A name for files: classes and seed, in letters that every system allows."""
    recipe = run["recipe"]
    if recipe is None:
        return "redone"
    text = "-".join(str(name) for name in recipe["classes"])[:40]
    safe = "".join(letter if letter.isalnum() else "-" for letter in text).strip("-").lower()
    return f"{safe or 'images'}-seed-{recipe['seed']}"
