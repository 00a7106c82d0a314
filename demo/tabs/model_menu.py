"""The model menu: what there is, what it costs, and what a switch changes on the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from demo.messages import explain
from demo.presets import model_presets
from demo.runs.example import first_result, in_turn
from demo.runs.recipes import settings_from_recipe
from demo.serving.catalogue import measured_speed
from demo.serving.models import ModelHolder
from demo.serving.runner import Runner
from demo.settings import RequestError
from demo.tabs.model_choice import (
    FETCHES,
    choice_list,
    choice_value,
    chosen_name,
    fetched,
    sentence_html,
)
from demo.tabs.model_parts import (
    PageParts,
    Updates,
    link_settings,
    merged,
    page_updates,
    setting_updates,
)
from demo.tabs.widgets import PRIVATE, codebook_holder, facts_holder, model_event, model_facts


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
    fetched: gr.State
    fetch: gr.State
    facts: gr.HTML
    codebook: gr.HTML

    def offer(self, models: ModelHolder, name: str, kind: str, content: Any) -> Updates | None:
        """Offer to switch to the model that a link or recipe names; None where that is no use."""
        if name == models.name or models.find(name) is None:
            return None
        sentence = (
            f"This {kind} was made with {models.title_of(name)}. Press Use this model to switch "
            "to it; the settings follow."
        )
        return {
            self.accordion: gr.update(open=True),
            self.choice: choice_value(models, name),
            self.status: sentence_html(sentence),
            self.pending: (name, kind, content),
        }


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
        gr.State(None),
        gr.State(0),
        facts,
        codebook,
    )


def model_updates(
    models: ModelHolder, menu: ModelMenu, page: PageParts, chosen: Sequence[Any]
) -> Updates:
    """Lay the page out for the model in use; `chosen` as in `page_updates`."""
    return {
        **page_updates(models.current, page, chosen),
        menu.accordion: gr.update(label=f"Model: {models.title}"),
        menu.choice: choice_value(models, models.name),
        menu.shown: models.name,
        menu.facts: model_facts(models.name, model_presets(models.current)),
    }


def pending_settings(models: ModelHolder, pending: Any) -> dict[str, Any] | None:
    """The settings of a link or recipe that waited for its model.

    Raises:
        RequestError: see `recipes.settings_from_recipe`.
    """
    if pending is None or pending[0] != models.name:
        return None
    _, kind, content = pending
    if kind == "recipe":
        return settings_from_recipe(list(models.current.classes), content)
    return link_settings(models.current, content)


def wire_menu(models: ModelHolder, menu: ModelMenu, page: PageParts, runner: Runner) -> None:
    """Let the menu switch the model. Call inside the `gr.Blocks`, after all tabs."""

    def on_fetch(value: Any) -> Iterator[Updates]:
        number, progress = FETCHES.begin()
        busy = {menu.go: gr.update(interactive=False), menu.cancel: gr.update(visible=True)}
        try:
            yield {**busy, menu.fetched: None, menu.fetch: number}
            yield from fetched(models, menu, chosen_name(value), progress)
        finally:
            FETCHES.end(number)

    def on_load(value: Any, arrived: Any, shown_name: str, pending: Any, *chosen: Any) -> Updates:
        done: Updates = {menu.go: gr.update(interactive=True), menu.fetched: None}
        if arrived:
            # Its own name, kept here: what the page says now may be another's.
            name, folder = arrived
            done |= _switched(models, menu, runner, name, Path(folder))
        if shown_name == models.name or (not arrived and chosen_name(value) != models.name):
            return done
        done |= model_updates(models, menu, page, chosen)
        done[menu.pending] = None
        with explain("The settings cannot be used."):
            settings = pending_settings(models, pending)
            return merged(done, setting_updates(models.current, page, settings))
        return done

    def on_loaded() -> tuple[Any, Any]:
        first, turn = first_result(models), in_turn(runner)
        return first.codebook(turn) or gr.skip(), first.tiles(turn)

    _wire_outlook(models, menu, runner)
    chosen = [page.generate.classes, page.edit.classes, page.compare.classes]
    menu.cancel.click(FETCHES.cancel, menu.fetch, None, queue=False, **PRIVATE)
    menu.go.click(
        on_fetch,
        menu.choice,
        [menu.status, menu.fetched, menu.go, menu.cancel, menu.fetch],
        concurrency_id="models",
        concurrency_limit=4,
        **PRIVATE,
    ).then(
        on_load,
        [menu.choice, menu.fetched, menu.shown, menu.pending, *chosen],
        menu_outputs(menu, page),
        **model_event(runner),
    ).then(on_loaded, None, [menu.codebook, page.tiles], **model_event(runner))


def _wire_outlook(models: ModelHolder, menu: ModelMenu, runner: Runner) -> None:
    """Say what stands in the way of each model when the menu is opened."""

    def on_expand() -> Iterator[Any]:
        models.lookout.reach()
        yield choice_value(models, None)
        # The network is asked at once; the processor is measured when it has nothing else to do.
        if models.lookout.measure(lambda: measured_speed(models.current.device), in_turn(runner)):
            yield choice_value(models, None)

    menu.accordion.expand(
        on_expand,
        None,
        menu.choice,
        concurrency_id="outlook",
        concurrency_limit=4,
        **PRIVATE,
    )


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
    states = [menu.shown, menu.pending, menu.fetched]
    return [menu.accordion, menu.choice, menu.go, menu.status, menu.facts, *states, *page.all]
