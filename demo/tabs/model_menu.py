"""The model menu: what there is, what it costs, and what a switch changes on the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.runs import compare, recipes
from demo.runs.example import example_classes, first_result, in_turn
from demo.serving.catalogue import measured_speed
from demo.serving.models import ModelHolder
from demo.serving.runner import Runner
from demo.settings import (
    CUSTOM,
    FIELDS,
    NO_CLASS,
    RequestError,
    model_presets,
    preset_of,
    usual_preset,
    usual_values,
)
from demo.tabs.model_choice import (
    FETCHES,
    choice_list,
    choice_value,
    chosen_name,
    fetched,
    sentence_html,
)
from demo.tabs.widgets import (
    PRIVATE,
    codebook_holder,
    facts_holder,
    model_event,
    model_facts,
    shown,
)

Updates = dict[Any, Any]


@dataclass(frozen=True)
class ModelMenu:
    """Widgets of the menu, and what the page remembers about its model.

    Args:
        accordion: holds the menu; its label names the model in use.
        choice: the menu itself, see `choice_value`.
        go: fetches and loads what is chosen.
        cancel: stops the fetch that `go` began.
        status: one sentence on what goes on.
        shown: state, name of the model that this page is laid out for.
        pending: state, a link or recipe that waits for another model: the model, its
            kind and content.
        folder: state, the fetched folder on its way to be loaded; empty where there is none.
        fetch: state, number of the fetch that this page began; 0 where it has none.
        facts: tells the page's scripts about the model.
        codebook: the model's colours.
    """

    accordion: gr.Accordion
    choice: gr.HTML
    go: gr.Button
    cancel: gr.Button
    status: gr.HTML
    shown: gr.State
    pending: gr.State
    folder: gr.State
    fetch: gr.State
    facts: gr.HTML
    codebook: gr.HTML

    def offer(self, models: ModelHolder, wanted: str, kind: str, content: Any) -> Updates | None:
        """Offer to switch to the model that a link or recipe names; None where that is no use."""
        if wanted == models.name or models.find(wanted) is None:
            return None
        sentence = (
            f"This {kind} was made with {models.title_of(wanted)}. Press Use this model to switch "
            "to it; the settings follow."
        )
        return {
            self.accordion: gr.update(open=True),
            self.choice: choice_value(models, wanted),
            self.status: sentence_html(sentence),
            self.pending: (wanted, kind, content),
        }


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


def build_menu(models: ModelHolder) -> ModelMenu:
    """Lay the menu out; `wire_menu` brings it to life. Call inside the `gr.Blocks`."""
    model = models.current
    facts = facts_holder(model_facts(models.name, model_presets(model)))
    codebook = codebook_holder()
    with gr.Accordion(
        f"Model: {models.title}",
        open=False,
        elem_id="model-menu",
        visible=len(models.entries) > 1,
    ) as accordion:
        choice = choice_list(models)
        with gr.Row(elem_classes="actions"):
            go = gr.Button("Use this model", elem_id="model-go", min_width=150)
            cancel = gr.Button("Cancel", elem_id="model-cancel", min_width=100, visible=False)
        status = gr.HTML("", elem_id="model-status")
    return ModelMenu(
        accordion,
        choice,
        go,
        cancel,
        status,
        gr.State(models.name),
        gr.State(None),
        gr.State(""),
        gr.State(0),
        facts,
        codebook,
    )


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


def model_updates(
    models: ModelHolder, menu: ModelMenu, page: PageParts, chosen: tuple[Any, Any, Any]
) -> Updates:
    """Lay the page out for the model in use.

    Args:
        models, menu, page: of the page.
        chosen: classes of the Generate, Edit and Compare tab; those that the model knows stay.
    """
    model = models.current
    classes = list(model.classes)
    fill = edit_classes(model)
    names = [name for name in chosen[0] or [] if name in classes] or example_classes(classes)
    return {
        **_tab_updates(page.generate, model, classes, names),
        **_tab_updates(page.edit, model, fill, chosen[1] if chosen[1] in fill else fill[0]),
        **_tab_updates(
            page.compare, model, classes, chosen[2] if chosen[2] in classes else classes[-1]
        ),
        page.what: gr.update(
            choices=compare.choices_for(model.null_label is not None), value="Order"
        ),
        page.tiles: {"tiles": []},
        page.tour: False,
        menu.accordion: gr.update(label=f"Model: {models.title}"),
        menu.choice: choice_value(models, models.name),
        menu.shown: models.name,
        menu.facts: model_facts(models.name, model_presets(model)),
    }


def setting_updates(models: ModelHolder, page: PageParts, found: dict[str, Any] | None) -> Updates:
    """Put settings from elsewhere into the Generate tab; what they leave out stays."""
    if found is None:
        return {}
    presets = model_presets(models.current)
    widgets = {"classes": page.generate.classes, "count": page.count, "seed": page.seed}
    changed: Updates = {
        widget: gr.update(value=found[key]) for key, widget in widgets.items() if key in found
    }
    changed[page.generate.preset] = gr.update(value=preset_of(found, presets))
    for field, widget in zip(FIELDS, page.generate.fields, strict=True):
        changed[widget] = gr.update(value=found[field.name])
    return changed


def link_settings(models: ModelHolder, parameters: list[tuple[str, str]]) -> dict[str, Any] | None:
    """The settings in a link, read for the model in use."""
    model = models.current
    return recipes.settings_from_link(list(model.classes), parameters, usual_values(model))


def merged(first: Updates, second: Updates) -> Updates:
    """Both groups of updates; of what a widget is told twice, the second counts."""
    joined = dict(first)
    for widget, change in second.items():
        old = joined.get(widget)
        both = isinstance(old, dict) and isinstance(change, dict) and "__type__" in change
        joined[widget] = {**old, **change} if both else change
    return joined


def pending_settings(models: ModelHolder, pending: Any) -> dict[str, Any] | None:
    """The settings of a link or recipe that waited for its model.

    Raises:
        RequestError: see `recipes.settings_from_recipe`.
    """
    wanted, kind, content = pending or ("", "", None)
    if wanted != models.name:
        return None
    if kind == "recipe":
        return recipes.settings_from_recipe(list(models.current.classes), content)
    return link_settings(models, content)


def wire_menu(models: ModelHolder, menu: ModelMenu, page: PageParts, runner: Runner) -> None:
    """Let the menu switch the model. Call inside the `gr.Blocks`, after all tabs."""

    def on_expand(value: Any) -> Iterator[Any]:
        chosen = chosen_name(value) or models.name
        models.lookout.reach()
        yield choice_value(models, chosen)
        # The network is asked at once; the processor is measured when it has nothing else to do.
        if models.lookout.measure(lambda: measured_speed(models.current.device), in_turn(runner)):
            yield choice_value(models, chosen)

    def on_fetch(value: Any) -> Iterator[Updates]:
        number, progress = FETCHES.begin()
        busy = {menu.go: gr.update(interactive=False), menu.cancel: gr.update(visible=True)}
        try:
            yield {**busy, menu.folder: "", menu.fetch: number}
            yield from fetched(models, menu, chosen_name(value), progress)
        finally:
            FETCHES.end(number)

    def on_load(value: Any, folder: str, shown_name: str, pending: Any, *chosen: Any) -> Updates:
        name = chosen_name(value)
        done: Updates = {menu.go: gr.update(interactive=True), menu.folder: ""}
        if folder:
            done |= _switched(models, menu, runner, name, Path(folder))
        if shown_name == models.name or (not folder and name != models.name):
            return done
        done |= model_updates(models, menu, page, chosen)  # type: ignore[arg-type]
        done[menu.pending] = None
        with explain("The settings cannot be used."):
            done = merged(done, setting_updates(models, page, pending_settings(models, pending)))
        return done

    def on_loaded() -> tuple[Any, Any]:
        first, turn = first_result(models), in_turn(runner)
        return first.codebook(turn) or gr.skip(), first.tiles(turn)

    chosen = [page.generate.classes, page.edit.classes, page.compare.classes]
    menu.accordion.expand(
        on_expand,
        menu.choice,
        menu.choice,
        concurrency_id="outlook",
        concurrency_limit=4,
        **PRIVATE,
    )
    menu.cancel.click(FETCHES.cancel, menu.fetch, None, queue=False, **PRIVATE)
    menu.go.click(
        on_fetch,
        menu.choice,
        [menu.status, menu.folder, menu.go, menu.cancel, menu.fetch],
        concurrency_id="models",
        concurrency_limit=4,
        **PRIVATE,
    ).then(
        on_load,
        [menu.choice, menu.folder, menu.shown, menu.pending, *chosen],
        menu_outputs(menu, page),
        **model_event(runner),
    ).then(on_loaded, None, [menu.codebook, page.tiles], **model_event(runner))


def _switched(
    models: ModelHolder, menu: ModelMenu, runner: Runner, name: str, folder: Path
) -> Updates:
    """Switch to a model that was fetched; what the status says of it."""

    def use() -> None:
        models.use(name, folder)

    sentence = ""
    with explain():
        try:
            # In its turn: no run may be under way while one model makes room for another.
            runner.call("switch", use, refusable=False)
            sentence = f"{models.title} is in use."
        except RequestError as error:
            sentence = str(error)
            raise
    return {menu.status: sentence_html(sentence)}


def menu_outputs(menu: ModelMenu, page: PageParts) -> list[Any]:
    """Everything that a switch may change."""
    states = [menu.shown, menu.pending, menu.folder]
    return [menu.accordion, menu.choice, menu.go, menu.status, menu.facts, *states, *page.all]
