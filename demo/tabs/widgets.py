"""Widgets that both tabs share: presets, the advanced fold, the seed with its dice, the player."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from demo.settings import CUSTOM, FIELDS, MAX_SEED, Field, usual_preset

ASSETS = Path(__file__).parents[1] / "assets"

NEW_SEED_JS = f"() => Math.floor(Math.random() * {MAX_SEED + 1})"


def asset(name: str) -> str:
    """Text of a file in `assets`."""
    return (ASSETS / name).read_text(encoding="utf-8")


PLAYER_SCRIPTS = (
    "player_draw.js",
    "player_words.js",
    "player_moves.js",
    "player.js",
    "player_again.js",
)


def player(
    elem_id: str, empty_text: str, *, selectable: bool = False, shows_itself: bool = False
) -> gr.HTML:
    """The player: draws a run (see `frames`) and plays it without asking the server.

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


def stop_js(player_id: str) -> str:
    """A script for a Stop button: tells a player that nothing more will come."""
    return f"""() => {{
    window.dispatchEvent(new CustomEvent("maskgit-stop", {{ detail: "{player_id}" }}));
    return [];
}}"""


def selection_of(player_id: str) -> gr.HTML:
    """An unseen element whose value is {run, cells}: what is marked in a player."""
    return gr.HTML(
        value=None,
        html_template="<span></span>",
        js_on_load=asset("selection.js"),
        visible="hidden",
        elem_id=f"{player_id}-selection",
        player=player_id,
    )


def codebook_holder() -> gr.HTML:
    """An unseen element that hands the codebook's colours to every player."""
    return gr.HTML(
        value=None,
        html_template="<span></span>",
        js_on_load=asset("codebook.js"),
        visible="hidden",
        elem_id="codebook",
    )


def preset_table(presets: Presets) -> dict[str, list[Any]]:
    """The values of each preset in the order of `FIELDS`, for scripts."""
    return {name: [values[f.name] for f in FIELDS] for name, values in presets.items()}


def model_facts(name: str, presets: Presets) -> dict[str, Any]:
    """What the page's scripts know of the model in use; the value of `facts_holder`."""
    return {"name": name, "presets": preset_table(presets), "usual": usual_preset(presets)}


def facts_holder(value: dict[str, Any]) -> gr.HTML:
    """An unseen element that tells scripts which model is in use."""
    return gr.HTML(
        value=value,
        html_template="<span></span>",
        js_on_load=asset("model.js"),
        visible="hidden",
        elem_id="model-facts",
    )


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


def shown(field: Field, guided: bool) -> bool | str:
    """The `visible` of a setting: what a model does not know is out of sight, yet keeps a value."""
    return True if guided or not field.name.startswith("guidance") else "hidden"


def _widget(field: Field, value: Any, prefix: str, guided: bool) -> gr.components.Component:
    elem_id = f"{prefix}-{field.name}"
    if field.choices:
        return gr.Dropdown(
            [(word.replace("_", " ").capitalize(), word) for word in field.choices],
            value=value,
            label=field.label,
            info=field.info,
            elem_id=elem_id,
            visible=shown(field, guided),
        )
    return gr.Slider(
        field.low,
        field.high,
        value=value,
        step=field.step,
        label=field.label,
        info=field.info,
        elem_id=elem_id,
        buttons=[],
        visible=shown(field, guided),
    )


Presets = dict[str, dict[str, Any]]


def preset_radio(prefix: str, presets: Presets) -> gr.Radio:
    """Presets by name; `Custom` is what the fold below may make of them."""
    return gr.Radio(
        [*presets, CUSTOM],
        value=usual_preset(presets),
        label="Preset",
        elem_id=f"{prefix}-preset",
        elem_classes="presets",
    )


def advanced_fold(
    prefix: str, preset: gr.Radio, presets: Presets, *, guided: bool = True
) -> list[gr.components.Component]:
    """The fold with every sampling setting, in the order of `FIELDS`, tied to the preset.

    The tie runs in the browser: choosing a preset fills the fold, changing the fold names the
    preset that it equals. The presets are those of the model in use, see `model_facts`.

    Args:
        prefix: of the widgets' ids.
        preset: from `preset_radio`.
        presets: of the model.
        guided: whether the model knows guidance; without, its settings are out of sight.
    """
    with gr.Accordion("Advanced", open=False, elem_id=f"{prefix}-advanced"):
        widgets = [
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
            const found = Object.entries({table}).find(([, values]) => same(values));
            return found ? found[0] : "{CUSTOM}";
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
    """Name the values that the fold's widgets sent."""
    return {field.name: value for field, value in zip(FIELDS, values, strict=True)}
