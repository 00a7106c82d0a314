"""Settings outlive a reload: kept in the browser's tab, read back as something not to be trusted.

The Generate tab's settings are in the address bar instead, where they can be shared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from demo.presets import CUSTOM
from demo.serving.models import ModelHolder
from demo.settings import FIELDS, RequestError, parse_number

MAX_TEXT = 20_000
KEY = "maskgit-settings"

Widgets = Mapping[str, gr.components.Component]

SAVE_JS = f"""(...values) => {{
    if (!window.maskgitTouched) return [];
    const stored = {{model: window.maskgitModel?.name, values: {{}}}};
    NAMES.forEach((name, i) => {{ stored.values[name] = values[i]; }});
    try {{ window.sessionStorage.setItem("{KEY}", JSON.stringify(stored)); }} catch {{}}
    return [];
}}"""
LOAD_JS = f"""() => {{
    try {{ return [window.sessionStorage.getItem("{KEY}") || ""]; }} catch {{ return [""]; }}
}}"""


def allowed(widget: gr.components.Component, value: Any) -> bool:
    """Whether a widget can show a value that came from outside."""
    if isinstance(widget, gr.CheckboxGroup):
        known = [choice[1] for choice in widget.choices]
        return (
            isinstance(value, list) and len(value) <= len(known) and all(v in known for v in value)
        )
    if isinstance(widget, gr.Radio | gr.Dropdown):
        return isinstance(value, str) and value in [choice[1] for choice in widget.choices]
    if isinstance(widget, gr.Slider):
        low, high = widget.minimum, widget.maximum
        whole = float(widget.step).is_integer()
    elif isinstance(widget, gr.Number):
        low, high, whole = 0, 2**53, widget.precision == 0
    else:
        return False
    try:
        return parse_number("", value, low, high, whole=whole) == value
    except RequestError:
        return False


def read_settings(text: Any, model: str, widgets: Widgets) -> dict[str, Any]:
    """The settings that a browser kept.

    Args:
        text: what it sent.
        model: name of the model in use; settings that were kept with another are left out.
        widgets: by the names that they were kept under.

    Returns:
        A value for each name that was kept and makes sense.
    """
    if not isinstance(text, str) or not text or len(text) > MAX_TEXT:
        return {}
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    values = stored.get("values") if isinstance(stored, dict) else None
    if not isinstance(values, dict) or stored.get("model") != model:
        return {}
    return {
        name: values[name]
        for name, widget in widgets.items()
        if name in values and allowed(widget, values[name])
    }


def with_presets(settings: dict[str, Any], presets: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which a chosen preset counts more than what its settings still held."""
    filled = dict(settings)
    for name, value in settings.items():
        prefix, _, last = name.rpartition("preset")
        if not last and value != CUSTOM and value in presets:
            filled |= {f"{prefix}{field.name}": presets[value][field.name] for field in FIELDS}
    return filled


def named(prefix: str, parts: Any, more: Widgets) -> dict[str, gr.components.Component]:
    """The widgets of a tab under names of their own.

    Args:
        prefix: of the tab.
        parts: its `ModelParts`.
        more: its other widgets.
    """
    widgets = {"class": parts.classes, "preset": parts.preset, **more}
    widgets |= {field.name: widget for field, widget in zip(FIELDS, parts.fields, strict=True)}
    return {f"{prefix}-{name}": widget for name, widget in widgets.items()}


def remember(demo: gr.Blocks, models: ModelHolder, widgets: Widgets, presets: Any) -> None:
    """Keep the widgets' values in the browser and bring them back. Call inside the `gr.Blocks`.

    Args:
        demo: the page.
        models: the model in use.
        widgets: by name.
        presets: from a model to its presets.
    """
    holder = gr.Textbox(visible="hidden", elem_id="kept-settings", label="Kept settings")
    everything: list[Any] = list(widgets.values())
    gr.on(
        [widget.change for widget in everything],
        None,
        everything,
        None,
        js=SAVE_JS.replace("NAMES", json.dumps(list(widgets))),
        api_visibility="private",
    )

    def on_open(text: str) -> list[Any]:
        settings = read_settings(text, models.name, widgets)
        if settings:
            settings = with_presets(settings, presets(models.current))
        return [settings.get(name, gr.skip()) for name in widgets]

    demo.load(
        on_open,
        holder,
        everything,
        js=LOAD_JS,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
