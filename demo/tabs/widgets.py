"""Widgets that several tabs share: presets, all settings, the seed with its dice, the player."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from demo.presets import CUSTOM, usual_preset
from demo.serving.runner import Runner
from demo.settings import FIELDS, SEED, Field

ASSETS = Path(__file__).parents[1] / "assets"

NEW_SEED_JS = f"() => Math.floor(Math.random() * {SEED.high + 1})"

# Of the page's own events: no name that programs may call, and nothing drawn over the results.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

Presets = dict[str, dict[str, Any]]


def model_event(runner: Runner) -> dict[str, Any]:
    """Options of an event that waits for the model."""
    return {"concurrency_id": "model", "concurrency_limit": runner.concurrency, **PRIVATE}


def asset(name: str) -> str:
    """Text of a file in `assets`."""
    return (ASSETS / name).read_text(encoding="utf-8")


PLAYER_SCRIPTS = (
    "player_run.js",
    "player_draw.js",
    "player_words.js",
    "player_moves.js",
    "player.js",
    "player_again.js",
)


def player(
    elem_id: str, empty_text: str, *, selectable: bool = False, shows_itself: bool = False
) -> gr.HTML:
    """The player: draws a run and plays it without asking the server.

    Its value is the run's log, see `frames`.

    Args:
        elem_id: its id on the page.
        empty_text: what it says before the first run.
        selectable: whether cells can be marked by hand; see `selection_of`.
        shows_itself: whether a finished run that is there from the start plays once.
    """
    return gr.HTML(
        value=None,
        html_template=asset("player.html"),
        css_template=asset("player.css"),
        js_on_load="\n".join(asset(name) for name in PLAYER_SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
        empty_text=empty_text,
        selectable=selectable,
        shows_itself=shows_itself,
        player_id=elem_id,
    )


def go_row(prefix: str, words: str) -> tuple[gr.Button, gr.Button]:
    """The button that starts a run, and the one that stops it."""
    with gr.Row(elem_classes="actions go-row"):
        go = gr.Button(words, variant="primary", elem_id=f"{prefix}-go", scale=3)
        stop = gr.Button("Stop", interactive=False, elem_id=f"{prefix}-stop", scale=1)
    return go, stop


def wire_stop(stop: gr.Button, player_id: str, event: Any) -> None:
    """Let a Stop button end an event, and tell a player that nothing more will come."""
    stop.click(
        lambda: gr.update(interactive=False),
        None,
        stop,
        js=f"""() => {{
    window.dispatchEvent(new CustomEvent("maskgit-stop", {{ detail: "{player_id}" }}));
    return [];
}}""",
        cancels=[event],
        queue=False,
        api_visibility="private",
    )


def selection_of(player_id: str) -> gr.HTML:
    """An unseen element whose value is {run, cells}: what is marked in a player."""
    return unseen(f"{player_id}-selection", "selection.js", player=player_id)


def unseen(elem_id: str, script: str, value: Any = None, **props: Any) -> gr.HTML:
    """An element without looks, whose script hands its value on."""
    return gr.HTML(
        value=value,
        html_template="<span></span>",
        js_on_load=asset(script),
        visible="hidden",
        elem_id=elem_id,
        **props,
    )


def codebook_holder() -> gr.HTML:
    """An unseen element that hands the codebook's colours to every player."""
    return unseen("codebook", "codebook.js")


def preset_table(presets: Presets) -> dict[str, list[Any]]:
    """The values of each preset in the order of `FIELDS`, for scripts."""
    return {name: [values[f.name] for f in FIELDS] for name, values in presets.items()}


def model_facts(name: str, presets: Presets) -> dict[str, Any]:
    """What the page's scripts know of the model in use; the value of `facts_holder`."""
    return {"name": name, "presets": preset_table(presets), "usual": usual_preset(presets)}


def facts_holder(value: dict[str, Any]) -> gr.HTML:
    """An unseen element that tells scripts which model is in use."""
    return unseen("model-facts", "model.js", value)


def picture_tiles(
    elem_id: str, label: str, value: dict[str, Any] | None = None, **props: Any
) -> gr.HTML:
    """A row of pictures to press; its value is {tiles: [{name, src}], clicked: name}."""
    return gr.HTML(
        value=value,
        html_template=f'<div class="ct" role="group" aria-label="{label}"></div>',
        css_template=asset("tiles.css"),
        js_on_load=asset("tiles.js"),
        apply_default_css=False,
        elem_id=elem_id,
        **props,
    )


def shown(field: Field, guided: bool) -> bool | Literal["hidden"]:
    """The `visible` of a setting: what a model does not know is out of sight, yet keeps a value."""
    return True if guided or not field.name.startswith("guidance") else "hidden"


def slider(field: Field, elem_id: str, value: float, **options: Any) -> gr.Slider:
    """A slider for a number of the table of settings."""
    return gr.Slider(
        field.low,
        field.high,
        value=value,
        step=field.step,
        elem_id=elem_id,
        buttons=[],
        **{"label": field.label, "info": field.info or None, **options},
    )


def _widget(field: Field, value: Any, prefix: str, guided: bool) -> gr.components.Component:
    elem_id, visible = f"{prefix}-{field.name}", shown(field, guided)
    if not field.choices:
        return slider(field, elem_id, value, visible=visible)
    return gr.Dropdown(
        [(word.replace("_", " ").capitalize(), word) for word in field.choices],
        value=value,
        label=field.label,
        info=field.info,
        elem_id=elem_id,
        visible=visible,
    )


def preset_radio(prefix: str, presets: Presets) -> gr.Radio:
    """Presets by name; `Custom` is what the settings below may make of them."""
    return gr.Radio(
        [*presets, CUSTOM],
        value=usual_preset(presets),
        label="Preset",
        elem_id=f"{prefix}-preset",
        elem_classes="presets",
    )


def advanced_settings(
    prefix: str, preset: gr.Radio, presets: Presets, *, guided: bool = True
) -> list[gr.components.Component]:
    """Every sampling setting, in the order of `FIELDS`, in an accordion and tied to the preset.

    The tie runs in the browser: choosing a preset fills the settings, changing one names the
    preset that they equal. The presets are those of the model in use, see `model_facts`.

    Args:
        prefix: of the widgets' ids.
        preset: from `preset_radio`.
        presets: of the model.
        guided: whether the model knows guidance; without, its settings are out of sight.
    """
    with gr.Accordion("Advanced", open=False, elem_id=f"{prefix}-advanced"):
        widgets: list[Any] = [
            _widget(f, presets[usual_preset(presets)][f.name], prefix, guided) for f in FIELDS
        ]
    table = f"(window.maskgitModel?.presets || {json.dumps(preset_table(presets))})"
    preset.input(
        None,
        [preset, *widgets],
        widgets,
        js=f"(name, ...now) => {table}[name] || now",
        api_visibility="private",
    )
    gr.on(
        [widget.input for widget in widgets],
        None,
        widgets,
        preset,
        js=f"""(...now) => {{
            const same = (values) => values.every((value, i) => value === now[i]);
            const equal = Object.entries({table}).find(([, values]) => same(values));
            return equal ? equal[0] : "{CUSTOM}";
        }}""",
        api_visibility="private",
    )
    return widgets


def seed_row(prefix: str, value: int = 1) -> gr.Number:
    """A seed and a button that rolls another."""
    with gr.Row(elem_classes="seed-row"):
        seed = gr.Number(
            value, label="Seed", precision=0, elem_id=f"{prefix}-seed", min_width=120, scale=3
        )
        dice = gr.Button("New seed", min_width=100, scale=1, elem_id=f"{prefix}-dice")
    dice.click(None, None, seed, js=NEW_SEED_JS, api_visibility="private")
    return seed


def field_values(values: tuple[Any, ...] | list[Any]) -> dict[str, Any]:
    """Name the values that the widgets of `advanced_settings` sent."""
    return {field.name: value for field, value in zip(FIELDS, values, strict=True)}
