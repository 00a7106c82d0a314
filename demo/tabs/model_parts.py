"""The widgets of the tabs that depend on the model, and what is set in them from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from demo.presets import CUSTOM, model_presets, preset_of, usual_preset, usual_values
from demo.runs.compare import choices_for
from demo.runs.example import example_classes
from demo.runs.recipes import settings_from_link
from demo.settings import FIELDS, NO_CLASS
from demo.tabs.widgets import shown

Updates = dict[Any, Any]  # by widget


@dataclass(frozen=True)
class ModelParts:
    """Widgets of one tab that depend on the model."""

    classes: gr.Dropdown
    preset: gr.Radio
    fields: list[gr.components.Component]

    @property
    def all(self) -> list[gr.components.Component]:
        """Every one of them."""
        return [self.classes, self.preset, *self.fields]


@dataclass(frozen=True)
class PageParts:
    """What a switch changes outside the menu.

    Args:
        generate, edit, compare: of the tabs.
        count, seed: of the Generate tab, for links and recipes.
        what: the kinds of comparison.
        tiles: class pictures of the Generate tab.
        tour: state, whether the tour has its pictures.
    """

    generate: ModelParts
    edit: ModelParts
    compare: ModelParts
    count: gr.Slider
    seed: gr.Number
    what: gr.Radio
    tiles: gr.HTML
    tour: gr.State

    @property
    def all(self) -> list[gr.components.Component]:
        """Every one of them."""
        parts = [*self.generate.all, *self.edit.all, *self.compare.all]
        return [*parts, self.count, self.seed, self.what, self.tiles, self.tour]


def edit_classes(model: Any) -> list[str]:
    """What an edit can be filled with."""
    return [*([] if model.null_label is None else [NO_CLASS]), *model.classes]


def _tab_updates(part: ModelParts, model: Any, classes: list[str], value: Any) -> Updates:
    presets = model_presets(model)
    usual = usual_preset(presets)
    guided = model.null_label is not None
    changed: Updates = {
        part.classes: gr.update(choices=classes, value=value),
        part.preset: gr.update(choices=[*presets, CUSTOM], value=usual),
    }
    for field, widget in zip(FIELDS, part.fields, strict=True):
        changed[widget] = gr.update(value=presets[usual][field.name], visible=shown(field, guided))
    return changed


def page_updates(model: Any, page: PageParts, chosen: Sequence[Any]) -> Updates:
    """Lay the tabs out for a model.

    Args:
        model: a `MaskGIT`.
        page: of the page.
        chosen: classes of the Generate, Edit and Compare tab; those that the model knows stay.
    """
    classes = list(model.classes)
    fill = edit_classes(model)
    names = [name for name in chosen[0] or [] if name in classes] or example_classes(classes)
    last = chosen[2] if chosen[2] in classes else classes[-1]
    return {
        **_tab_updates(page.generate, model, classes, names),
        **_tab_updates(page.edit, model, fill, chosen[1] if chosen[1] in fill else fill[0]),
        **_tab_updates(page.compare, model, classes, last),
        page.what: gr.update(choices=choices_for(model.null_label is not None), value="Order"),
        page.tiles: {"tiles": []},
        page.tour: False,
    }


def setting_updates(model: Any, page: PageParts, settings: dict[str, Any] | None) -> Updates:
    """Put settings from elsewhere into the Generate tab; what they leave out stays."""
    if settings is None:
        return {}
    presets = model_presets(model)
    widgets = {"classes": page.generate.classes, "count": page.count, "seed": page.seed}
    changed: Updates = {
        widget: gr.update(value=settings[key]) for key, widget in widgets.items() if key in settings
    }
    changed[page.generate.preset] = gr.update(value=preset_of(settings, presets))
    for field, widget in zip(FIELDS, page.generate.fields, strict=True):
        changed[widget] = gr.update(value=settings[field.name])
    return changed


def link_settings(model: Any, parameters: list[tuple[str, str]]) -> dict[str, Any] | None:
    """The settings in a link, read for a model."""
    return settings_from_link(list(model.classes), parameters, usual_values(model))


def merged(first: Updates, second: Updates) -> Updates:
    """Both groups of updates; of what a widget is told twice, the second counts."""
    joined = dict(first)
    for widget, change in second.items():
        old = joined.get(widget)
        if isinstance(old, dict) and isinstance(change, dict) and "__type__" in change:
            joined[widget] = {**old, **change}
        else:
            joined[widget] = change
    return joined
