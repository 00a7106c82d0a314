"""The Generate tab: choose classes, watch images appear, keep them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from . import exports, handlers, redo
from .controls import (
    advanced_fold,
    asset,
    field_values,
    picture_tiles,
    player,
    preset_radio,
    seed_row,
    selection_of,
)
from .example import EXAMPLE_SEED, example_classes
from .messages import explain
from .model_menu import (
    ModelMenu,
    ModelParts,
    model_presets,
)
from .models import ModelHolder
from .photos import PhotoStore
from .settings import DEFAULT_PRESET, FIELDS, MAX_IMAGES, PRESETS

SPEEDS = [("Slow", 0.8), ("Normal", 0.4), ("Fast", 0.15)]

TOGGLE_JS = """(tiles, names) => {
    const name = tiles.clicked, now = names || [];
    return [now.includes(name) ? now.filter((one) => one !== name) : [...now, name]];
}"""
CHOSEN_JS = """(names) => {
    window.maskgitClasses = names || [];
    window.dispatchEvent(new Event("maskgit-classes"));
    return [];
}"""


@dataclass(frozen=True)
class GenerateTab:
    """Widgets that the page fills from outside the tab (link, recipe, example result)."""

    classes: gr.Dropdown
    count: gr.Slider
    seed: gr.Number
    preset: gr.Radio
    fields: list[gr.components.Component]
    player: gr.HTML
    run: gr.State
    tiles: gr.HTML
    load: gr.UploadButton

    @property
    def parts(self) -> ModelParts:
        """What depends on the model."""
        return ModelParts(self.classes, self.preset, self.fields)


def link_js(*, copy: bool, menu: bool) -> str:
    """The script that turns the settings into a link.

    Args:
        copy: whether it also copies it.
        menu: whether the link names the model.
    """
    last = "navigator.clipboard?.writeText(url.href).catch(() => {}); return url.href;"
    return (
        asset("link.js")
        .partition("\n")[2]
        .replace("NAMES", json.dumps([field.name for field in FIELDS]))
        .replace("USUAL", json.dumps([PRESETS[DEFAULT_PRESET][field.name] for field in FIELDS]))
        .replace("MENU", json.dumps(menu))
        .replace("COPY", last if copy else "return [];")
    )


def build_generate_tab(
    models: ModelHolder, store: PhotoStore, menu: ModelMenu, scheduler: Any
) -> GenerateTab:
    """Lay the tab out and wire it. Call inside a `gr.Tab`."""
    model = models.current
    classes, guided = list(model.classes), model.null_label is not None
    presets = model_presets(model)
    del model  # the page must not keep it in memory
    run_state = gr.State(None)
    final_state = gr.State(None)
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=300, elem_classes="settings"):
            chosen = gr.Dropdown(
                classes,
                value=example_classes(classes),
                multiselect=True,
                filterable=True,
                label="Classes",
                info="Type to search. With several, the images take turns.",
                elem_id="gen-classes",
            )
            tiles = picture_tiles(
                "gen-tiles", "Classes by picture", chosen=example_classes(classes)
            )
            count = gr.Slider(
                1, MAX_IMAGES, value=4, step=1, label="Images", elem_id="gen-count", buttons=[]
            )
            seed = seed_row("gen", EXAMPLE_SEED)
            preset = preset_radio("gen", presets)
            with gr.Row(elem_classes="actions go-row"):
                go = gr.Button("Generate", variant="primary", elem_id="gen-go", scale=3)
                stop = gr.Button("Stop", interactive=False, elem_id="gen-stop", scale=1)
            fields = advanced_fold("gen", preset, presets, guided=guided)
        with gr.Column(scale=3, min_width=320, elem_classes="results"):
            view = player("gen-player", "Choose a class and press Generate.", selectable=True)
            # Outside the fold: what a closed fold holds is not on the page and hears nothing.
            selection = selection_of("gen-player")
            with gr.Accordion("Touch the tokens", open=False, elem_id="gen-touch"):
                gr.Markdown(
                    "Turn on Select cells above and mark some with the pointer. Then let the model "
                    "decide them again, or keep only them. All other cells stay as they are."
                )
                with gr.Row(elem_classes="actions tools"):
                    again = gr.Button("Decide marked cells again", elem_id="gen-redo")
                    keep = gr.Button("Keep marked, redo the rest", elem_id="gen-redo-rest")
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
                    speed = gr.Dropdown(
                        SPEEDS, value=0.4, label="Speed", min_width=90, elem_id="gen-speed"
                    )
                    lines = gr.Checkbox(
                        True, label="Outline new cells", min_width=140, elem_id="gen-lines"
                    )
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
                    "Open a recipe", file_types=[".json"], elem_id="gen-open-recipe"
                )
            file = gr.DownloadButton("File", visible="hidden", elem_id="gen-file")
    tab = GenerateTab(chosen, count, seed, preset, fields, view, run_state, tiles, load)
    tiles.click(None, [tiles, chosen], chosen, js=TOGGLE_JS, api_visibility="private")
    chosen.change(None, chosen, None, js=CHOSEN_JS, api_visibility="private")
    redo_buttons = [(again, False), (keep, True)]
    _wire_run(models, scheduler, menu, tab, go, stop, final_state, redo_buttons, selection)
    settings = [chosen, count, seed, *fields]
    copy.click(
        None,
        settings,
        link,
        js=link_js(copy=True, menu=len(models.entries) > 1),
        api_visibility="private",
    )
    _wire_files(
        store, tab, final_state, file, image, strip, recipe, animation, [kind, speed, lines]
    )

    return tab


def _wire_run(
    models: ModelHolder,
    scheduler: Any,
    menu: ModelMenu,
    tab: GenerateTab,
    go: gr.Button,
    stop: gr.Button,
    final_state: gr.State,
    redo_buttons: list[tuple[gr.Button, bool]],
    selection: gr.HTML,
) -> None:
    finished = (gr.skip(), gr.skip(), gr.skip(), gr.update(interactive=False))

    def stream(runs: Iterator[tuple[dict[str, Any], Any]]) -> Iterator[tuple[Any, ...]]:
        for run, images in runs:
            yield run, run, images or None, gr.update(interactive=True)

    def on_generate(
        shown: str, names: list[str], number: float, first_seed: float, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        with explain():
            request = handlers.parse_generate(
                models.expect(shown), names, number, first_seed, field_values(values)
            )
            yield from stream(scheduler.run(handlers.generate_run, models, shown, request))
        yield finished

    def on_redo(keep: bool) -> Any:
        def handler(shown: str, run: Any, marked: Any, *values: Any) -> Iterator[tuple[Any, ...]]:
            with explain():
                request = redo.parse_redo(run, marked, keep, field_values(values))
                yield from stream(scheduler.run(redo.redo_run, models, shown, request))
            yield finished

        return handler

    settings = [tab.classes, tab.count, tab.seed, *tab.fields]
    outputs = [tab.player, tab.run, final_state, stop]
    model_event: dict[str, Any] = {
        "show_progress": "hidden",
        "concurrency_id": "model",
        "concurrency_limit": scheduler.concurrency,
        "api_visibility": "private",
    }
    events = [go.click(on_generate, [menu.shown, *settings], outputs, **model_event)]
    marked = [menu.shown, tab.run, selection, *tab.fields]
    for button, keep in redo_buttons:
        events.append(button.click(on_redo(keep), marked, outputs, **model_event))
    # The address bar follows what was run, so that a reload brings the settings back.
    go.click(
        None,
        settings,
        None,
        js=link_js(copy=False, menu=len(models.entries) > 1),
        api_visibility="private",
    )
    stop.click(
        lambda: gr.update(interactive=False),
        None,
        stop,
        cancels=events,
        queue=False,
        api_visibility="private",
    )


def _wire_files(
    store: PhotoStore,
    tab: GenerateTab,
    final_state: gr.State,
    file: gr.DownloadButton,
    image: gr.Button,
    strip: gr.Button,
    recipe: gr.Button,
    animation: gr.Button,
    options: list[gr.components.Component],
) -> None:
    def save_image(run: dict[str, Any] | None, images: list[Any] | None) -> str:
        run = exports.require_run(run)
        if not images:
            last = exports.step_images(run, len(run["frames"]))
            images = [exports.Image.fromarray(picture) for picture in last]
        return store.save(exports.result_sheet(images, run["sheet_columns"]), _stem(run))

    def save_strip(run: dict[str, Any] | None, images: Any) -> str:
        return store.save(exports.film_strip(run), _stem(run) + "-steps")

    def save_recipe(run: dict[str, Any] | None, images: Any) -> str:
        text = exports.recipe_text(run)
        return store.write(lambda path: path.write_text(text, "utf-8"), _stem(run), "json")

    def save_animation(
        run: dict[str, Any] | None, images: list[Any] | None, kind: str, speed: float, lines: bool
    ) -> str:
        final = exports.np.stack([exports.np.asarray(i) for i in images]) if images else None
        pictures = exports.animation_frames(run, grid_lines=lines, final=final)
        return store.write(
            lambda path: exports.write_animation(path, pictures, kind=kind, seconds_per_step=speed),
            _stem(run),
            kind,
        )

    def saver(make: Any) -> Any:
        def handler(*arguments: Any) -> Any:
            with explain():
                return make(*arguments)
            return None

        return handler

    jobs = [
        (image, save_image, []),
        (strip, save_strip, []),
        (recipe, save_recipe, []),
        (animation, save_animation, options),
    ]
    for button, make, more in jobs:
        button.click(
            saver(make),
            [tab.run, final_state, *more],
            file,
            show_progress="hidden",
            api_visibility="private",
        ).then(
            None,
            file,
            None,
            js="(file) => { if (file) setTimeout(() => document.querySelector("
            "'#gen-file a, a#gen-file, #gen-file')?.click(), 150); }",
            api_visibility="private",
        )


def _stem(run: dict[str, Any]) -> str:
    """A name for files: classes and seed, in letters that every system allows."""
    recipe = run["recipe"]
    if recipe is None:
        return "redone"
    text = "-".join(str(name) for name in recipe["classes"])[:40]
    safe = "".join(letter if letter.isalnum() else "-" for letter in text).strip("-").lower()
    return f"{safe or 'images'}-seed-{recipe['seed']}"
