"""The Generate tab: choose classes, watch images appear, keep them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.presets import DEFAULT_PRESET, PRESETS, model_presets
from demo.runs.example import EXAMPLE_SEED, example_classes
from demo.runs.follow import follow
from demo.runs.generate import parse_generate
from demo.runs.photos import PhotoStore
from demo.runs.redo import parse_redo
from demo.serving.models import ModelHolder
from demo.serving.request import Request
from demo.serving.runner import Runner
from demo.settings import COUNT, FIELDS
from demo.tabs.keep import KeepWidgets, build_keep, wire_keep
from demo.tabs.model_menu import ModelMenu
from demo.tabs.model_parts import ModelParts
from demo.tabs.widgets import (
    advanced_settings,
    asset,
    field_values,
    go_row,
    model_event,
    picture_tiles,
    player,
    preset_radio,
    seed_row,
    selection_of,
    slider,
    wire_stop,
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
class Settings:
    """Widgets of what is to be made, and the buttons that start and stop it."""

    classes: gr.Dropdown
    tiles: gr.HTML
    count: gr.Slider
    seed: gr.Number
    preset: gr.Radio
    fields: list[gr.components.Component]
    go: gr.Button
    stop: gr.Button

    @property
    def request(self) -> list[gr.components.Component]:
        """What a request depends on."""
        return [self.classes, self.count, self.seed, *self.fields]

    @property
    def linked(self) -> list[Any]:
        """What a link holds."""
        return [self.classes, self.count, self.seed, self.preset, *self.fields]


@dataclass(frozen=True)
class Results:
    """The player and what is done with its run.

    Args:
        player: of the run.
        selection: its marked cells.
        again, keep_marked: buttons that decide marked cells again, or all but them.
        keep: what a visitor takes home.
        run, images: states, the run and its finished images.
    """

    player: gr.HTML
    selection: gr.HTML
    again: gr.Button
    keep_marked: gr.Button
    keep: KeepWidgets
    run: gr.State
    images: gr.State


@dataclass(frozen=True)
class GenerateTab:
    """Widgets that the page fills from outside the tab (link, recipe, example result)."""

    settings: Settings
    results: Results

    @property
    def parts(self) -> ModelParts:
        """What depends on the model."""
        return ModelParts(self.settings.classes, self.settings.preset, self.settings.fields)


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
    models: ModelHolder, store: PhotoStore, menu: ModelMenu, runner: Runner
) -> GenerateTab:
    """Lay the tab out and wire it. Call inside a `gr.Tab`."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(scale=2, min_width=300, elem_classes="settings"):
            settings = _settings(models.current)
        with gr.Column(scale=3, min_width=320, elem_classes="results"):
            results = _results()
    tab = GenerateTab(settings, results)
    settings.tiles.click(
        None,
        [settings.tiles, settings.classes],
        settings.classes,
        js=TOGGLE_JS,
        api_visibility="private",
    )
    settings.classes.change(None, settings.classes, None, js=CHOSEN_JS, api_visibility="private")
    _wire_run(models, runner, menu, tab)
    _wire_links(settings, results.keep, menu=len(models.entries) > 1)
    wire_keep(store, results.keep, results.run, results.images)
    return tab


def _settings(model: Any) -> Settings:
    classes, presets = list(model.classes), model_presets(model)
    chosen = example_classes(classes)
    names = gr.Dropdown(
        classes,
        value=chosen,
        multiselect=True,
        filterable=True,
        label="Classes",
        info="Type to search. With several, the images take turns.",
        elem_id="gen-classes",
    )
    tiles = picture_tiles("gen-tiles", "Classes by picture", chosen=chosen)
    count = slider(COUNT, "gen-count", 4)
    seed = seed_row("gen", EXAMPLE_SEED)
    preset = preset_radio("gen", presets)
    go, stop = go_row("gen", "Generate")
    fields = advanced_settings("gen", preset, presets, guided=model.null_label is not None)
    return Settings(names, tiles, count, seed, preset, fields, go, stop)


def _results() -> Results:
    view = player(
        "gen-player", "Choose a class and press Generate.", selectable=True, shows_itself=True
    )
    # Outside the accordion: what a closed one holds is not on the page and hears nothing.
    selection = selection_of("gen-player")
    with gr.Accordion("Touch the tokens", open=False, elem_id="gen-touch"):
        gr.Markdown(
            "Turn on Select cells above and mark some with the pointer. Then let the model "
            "decide them again, or keep only them. All other cells stay as they are."
        )
        with gr.Row(elem_classes="actions tools"):
            again = gr.Button("Decide marked cells again", elem_id="gen-redo")
            keep_marked = gr.Button("Keep marked, redo the rest", elem_id="gen-redo-rest")
    return Results(
        view, selection, again, keep_marked, build_keep(), gr.State(None), gr.State(None)
    )


def _wire_links(settings: Settings, keep: KeepWidgets, *, menu: bool) -> None:
    keep.copy.click(
        None,
        settings.linked,
        keep.link,
        js=link_js(copy=True, menu=menu),
        api_visibility="private",
    )
    # The address bar follows the settings, so that a reload brings them back.
    gr.on(
        [settings.go.click, *[widget.change for widget in settings.linked]],
        None,
        settings.linked,
        None,
        js=link_js(copy=False, menu=menu),
        api_visibility="private",
    )


def _wire_run(models: ModelHolder, runner: Runner, menu: ModelMenu, tab: GenerateTab) -> None:
    settings, results = tab.settings, tab.results
    redo_buttons = {results.again: False, results.keep_marked: True}

    def parse(event: gr.EventData, shown: str, run: Any, marked: Any, chosen: Any) -> Request:
        # A call of its own: a run that waits must not keep the model in memory.
        model = models.expect(shown)
        names, number, first_seed, *values = chosen
        fields = field_values(values)
        if event.target in redo_buttons:
            return parse_redo(model, run, marked, redo_buttons[event.target], fields)
        return parse_generate(model, names, number, first_seed, fields)

    def on_click(
        event: gr.EventData, shown: str, run: Any, marked: Any, *chosen: Any
    ) -> Iterator[tuple[Any, ...]]:
        with explain():
            request = parse(event, shown, run, marked, chosen)
            for progress in follow(request, runner.decode):
                images = progress.images or None
                yield progress.log, progress.run, images, gr.update(interactive=True)
        yield gr.skip(), gr.skip(), gr.skip(), gr.update(interactive=False)

    # One event for all three buttons: there is one player, so one run at a time.
    event = gr.on(
        [settings.go.click, *[button.click for button in redo_buttons]],
        on_click,
        [menu.shown, results.run, results.selection, *settings.request],
        [results.player, results.run, results.images, settings.stop],
        **model_event(runner),
    )
    wire_stop(settings.stop, "gen-player", event)
