"""The page: a head, its tabs, and what happens when it opens. Widgets and wiring only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from demo.api import Page, add_api
from demo.launch import DELETE_CACHE
from demo.messages import explain, notice
from demo.presets import model_presets
from demo.runs.example import first_result, in_turn
from demo.runs.photos import PhotoStore, take_upload
from demo.runs.recipes import MAX_RECIPE_BYTES, model_in_link, model_in_recipe, settings_from_recipe
from demo.serving.models import ModelHolder, as_holder
from demo.serving.runner import Runner, make_runner
from demo.tabs.browser_settings import remember
from demo.tabs.compare import CompareTab, build_compare_tab
from demo.tabs.edit import EditTab, build_edit_tab
from demo.tabs.generate import GenerateTab, build_generate_tab
from demo.tabs.model_menu import ModelMenu, build_menu, menu_outputs, model_updates, wire_menu
from demo.tabs.model_parts import PageParts, Updates, link_settings, merged, setting_updates
from demo.tabs.tour import build_tour_tab
from demo.tabs.training import build_training_tab
from demo.tabs.widgets import PRIVATE
from maskgit_core import MaskGIT

TITLE = "MaskGIT, step by step"
INTRO = (
    "This model paints by filling in blanks. It starts from an empty grid and decides a few cells "
    "at a time, the surest first, until an image is there."
)


def wire_recipe(
    models: ModelHolder, menu: ModelMenu, page: PageParts, load: gr.UploadButton, dropped: gr.HTML
) -> None:
    """Let a recipe file fill the settings, or offer the model that it was made with."""

    def on_recipe(path: Any) -> Updates:
        nothing: Updates = {menu.pending: None}
        with explain("This recipe cannot be used."):
            text = take_upload(path, most=MAX_RECIPE_BYTES)
            name = model_in_recipe(text)
            offer = menu.offer(models, name, "recipe", text)
            if offer is not None:
                return offer
            settings = settings_from_recipe(list(models.current.classes), text)
            if name and name != models.name:
                notice(
                    f"This recipe was made with the model {name!r}. This page runs "
                    f"{models.name!r}, so the images will differ."
                )
            return {**nothing, **setting_updates(models.current, page, settings)}
        return nothing

    def on_drop(value: Any) -> Updates:
        return on_recipe(value.get("path") if isinstance(value, dict) else None)

    for widget, handler in ((load, on_recipe), (dropped, on_drop)):
        widget.upload(handler, widget, menu_outputs(menu, page), **PRIVATE)


def build_demo(
    model: MaskGIT | ModelHolder,
    *,
    store: PhotoStore | None = None,
    training_dir: Path | None = None,
    runner: Runner | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        model: a `MaskGIT`, or the holder of one with a menu of others.
        store: where photos are kept while the page is used.
        training_dir: folder of training runs; there is a Training tab only where it is given.
        runner: computes; None is what `make_runner` gives.
    """
    models = as_holder(model)
    del model  # the page must not keep it in memory
    runner = runner or make_runner(models)
    with Page(
        title=TITLE, analytics_enabled=False, delete_cache=DELETE_CACHE, fill_width=True
    ) as demo:
        with gr.Row(elem_id="page-top"):
            head = f"<h1>{TITLE}</h1><p>{INTRO}</p>"
            gr.HTML(head, elem_id="page-head", apply_default_css=False, min_width=320)
            with gr.Column(min_width=300):
                menu = build_menu(models)
        tabs = _build_tabs(models, store or PhotoStore(), training_dir, menu, runner)
        page = tabs.parts
        wire_menu(models, menu, page, runner)
        keep = tabs.generate.results.keep
        wire_recipe(models, menu, page, keep.load, keep.dropped)
        remembered = {**tabs.edit.remembered, **tabs.comparison.remembered}
        remember(demo, models, remembered, model_presets)
        add_api(models, runner)
        _wire_opening(demo, models, menu, tabs, runner)
    return demo


@dataclass(frozen=True)
class _Tabs:
    generate: GenerateTab
    edit: EditTab
    comparison: CompareTab
    toured: gr.State

    @property
    def parts(self) -> PageParts:
        """What a switch of the model changes."""
        settings = self.generate.settings
        return PageParts(
            self.generate.parts,
            self.edit.parts,
            self.comparison.parts,
            settings.count,
            settings.seed,
            self.comparison.what,
            settings.tiles,
            self.toured,
        )


def _build_tabs(
    models: ModelHolder,
    store: PhotoStore,
    training_dir: Path | None,
    menu: ModelMenu,
    runner: Runner,
) -> _Tabs:
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab("Generate", id="generate", elem_id="tab-generate"):
            generate = build_generate_tab(models, store, menu, runner)
        with gr.Tab("Edit", id="edit", elem_id="tab-edit"):
            edit = build_edit_tab(models, store, menu, runner)
        with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
            comparison = build_compare_tab(models, menu, runner)
        with gr.Tab("How it works", id="tour", elem_id="tab-tour") as tour_tab:
            toured = build_tour_tab(tour_tab, models, runner)
        if training_dir is not None:
            with gr.Tab("Training", id="training", elem_id="tab-training"):
                build_training_tab(training_dir)
    return _Tabs(generate, edit, comparison, toured)


def _wire_opening(
    demo: gr.Blocks, models: ModelHolder, menu: ModelMenu, tabs: _Tabs, runner: Runner
) -> None:
    """What happens as the page opens: its model, the settings of its link, the first result."""
    laid_out_for, page, turn = models.name, tabs.parts, in_turn(runner)

    def on_open(request: gr.Request) -> Updates:
        link, model = list(request.query_params.multi_items()), models.current
        changed: Updates = {menu.pending: None}
        if models.name != laid_out_for:
            changed |= model_updates(models, menu, page, (None, None, None))
        changed = merged(changed, setting_updates(model, page, link_settings(model, link)))
        offer = menu.offer(models, model_in_link(link), "link", link)
        return merged(changed, offer or {})

    def on_opened() -> Any:
        first = first_result(models)
        first.run(turn)  # takes its time, and is kept
        return first.codebook(turn) or gr.skip()

    def on_example(run: Any) -> tuple[Any, Any]:
        # Who pressed Generate in the meantime keeps what came of it.
        progress = None if run else first_result(models).run(turn)
        return (progress.log, progress.run) if progress else (gr.skip(), gr.skip())

    results = tabs.generate.results
    demo.load(on_open, None, menu_outputs(menu, page), queue=False, **PRIVATE)
    demo.load(on_opened, None, menu.codebook, **PRIVATE).then(
        on_example, results.run, [results.player, results.run], **PRIVATE
    )
    demo.load(lambda: first_result(models).tiles(turn), None, page.tiles, **PRIVATE)
