"""The Generate tab: choose classes, watch images appear, keep them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.runs import generate, redo
from demo.runs.example import EXAMPLE_SEED, example_classes
from demo.runs.photos import PhotoStore
from demo.serving.models import ModelHolder
from demo.settings import DEFAULT_PRESET, FIELDS, MAX_IMAGES, PRESETS, model_presets
from demo.tabs.keep import KeepFold, build_keep_fold, wire_keep_fold
from demo.tabs.model_menu import ModelMenu, ModelParts
from demo.tabs.widgets import (
    advanced_fold,
    asset,
    field_values,
    picture_tiles,
    player,
    preset_radio,
    seed_row,
    selection_of,
    stop_js,
)

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
    keep: KeepFold

    @property
    def parts(self) -> ModelParts:
        """What depends on the model."""
        return ModelParts(self.classes, self.preset, self.fields)


def link_js(*, copy: bool, menu: bool) -> str:
    """The script that turns the settings into a link.

    Args:
        copy: whether it also copies it; otherwise it waits until the visitor has done something.
        menu: whether the link names the model.
    """
    last = "navigator.clipboard?.writeText(url.href).catch(() => {}); return url.href;"
    return (
        asset("link.js")
        .partition("\n")[2]
        .replace("NAMES", json.dumps([field.name for field in FIELDS]))
        .replace("USUAL", json.dumps([PRESETS[DEFAULT_PRESET][field.name] for field in FIELDS]))
        .replace("MENU", json.dumps(menu))
        .replace("ONLY_TOUCHED", json.dumps(not copy))
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
            view = player(
                "gen-player",
                "Choose a class and press Generate.",
                selectable=True,
                shows_itself=True,
            )
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
            keep_fold = build_keep_fold()
    tab = GenerateTab(chosen, count, seed, preset, fields, view, run_state, tiles, keep_fold)
    tiles.click(None, [tiles, chosen], chosen, js=TOGGLE_JS, api_visibility="private")
    chosen.change(None, chosen, None, js=CHOSEN_JS, api_visibility="private")
    redo_buttons = {again: False, keep: True}
    _wire_run(models, scheduler, menu, tab, go, stop, final_state, redo_buttons, selection)
    settings = [chosen, count, seed, preset, *fields]
    keep_fold.copy.click(
        None,
        settings,
        keep_fold.link,
        js=link_js(copy=True, menu=len(models.entries) > 1),
        api_visibility="private",
    )
    wire_keep_fold(store, keep_fold, run_state, final_state)
    return tab


def _wire_run(
    models: ModelHolder,
    scheduler: Any,
    menu: ModelMenu,
    tab: GenerateTab,
    go: gr.Button,
    stop: gr.Button,
    final_state: gr.State,
    redo_buttons: dict[gr.Button, bool],
    selection: gr.HTML,
) -> None:
    finished = (gr.skip(), gr.skip(), gr.skip(), gr.update(interactive=False))

    def stream(runs: Iterator[tuple[dict[str, Any], Any]]) -> Iterator[tuple[Any, ...]]:
        for run, images in runs:
            yield run, run, images or None, gr.update(interactive=True)

    def on_click(
        event: gr.EventData,
        shown: str,
        run: Any,
        marked: Any,
        names: list[str],
        number: float,
        first_seed: float,
        *values: Any,
    ) -> Iterator[tuple[Any, ...]]:
        with explain():
            fields = field_values(values)
            if event.target in redo_buttons:
                request: Any = redo.parse_redo(run, marked, redo_buttons[event.target], fields)
                make: Any = redo.redo_run
            else:
                model = models.expect(shown)
                request = generate.parse_generate(model, names, number, first_seed, fields)
                del model  # a run that waits must not keep it in memory
                make = generate.generate_run
            yield from stream(scheduler.run(make, models, shown, request))
        yield finished

    settings = [tab.classes, tab.count, tab.seed, *tab.fields]
    linked = [tab.classes, tab.count, tab.seed, tab.preset, *tab.fields]
    outputs = [tab.player, tab.run, final_state, stop]
    # One event for all three buttons: there is one player, so one run at a time.
    event = gr.on(
        [go.click, *[button.click for button in redo_buttons]],
        on_click,
        [menu.shown, tab.run, selection, *settings],
        outputs,
        show_progress="hidden",
        concurrency_id="model",
        concurrency_limit=scheduler.concurrency,
        api_visibility="private",
    )
    # The address bar follows the settings, so that a reload brings them back.
    gr.on(
        [go.click, *[widget.change for widget in linked]],
        None,
        linked,
        None,
        js=link_js(copy=False, menu=len(models.entries) > 1),
        api_visibility="private",
    )
    stop.click(
        lambda: gr.update(interactive=False),
        None,
        stop,
        js=stop_js("gen-player"),
        cancels=[event],
        queue=False,
        api_visibility="private",
    )
