"""The page: a head, its tabs, and what happens when it opens. Widgets and wiring only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from demo.api import add_api
from demo.launch import DELETE_CACHE
from demo.messages import explain, notice
from demo.runs.example import in_line
from demo.runs.photos import PhotoStore, take_upload
from demo.runs.recipes import MAX_RECIPE_BYTES, model_in_link, model_in_recipe, settings_from_recipe
from demo.serving.models import ModelHolder, as_holder
from demo.serving.queue import make_scheduler
from demo.settings import model_presets
from demo.tabs.browser_settings import remember
from demo.tabs.compare import build_compare_tab
from demo.tabs.edit import build_edit_tab
from demo.tabs.generate import build_generate_tab
from demo.tabs.model_menu import (
    ModelMenu,
    PageParts,
    Updates,
    build_menu,
    link_settings,
    menu_outputs,
    merged,
    model_updates,
    setting_updates,
    wire_menu,
)
from demo.tabs.tour import build_tour_tab
from demo.tabs.training import build_training_tab
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
            wanted = model_in_recipe(text)
            offer = menu.offer(models, wanted, "recipe", text)
            if offer is not None:
                return offer
            found = settings_from_recipe(list(models.current.classes), text)
            if wanted and wanted != models.name:
                notice(
                    f"This recipe was made with the model {wanted!r}. This page runs "
                    f"{models.name!r}, so the images will differ."
                )
            return {**nothing, **setting_updates(models, page, found)}
        return nothing

    def on_drop(value: Any) -> Updates:
        return on_recipe(value.get("path") if isinstance(value, dict) else None)

    for widget, handler in ((load, on_recipe), (dropped, on_drop)):
        widget.upload(
            handler,
            widget,
            menu_outputs(menu, page),
            show_progress="hidden",
            api_visibility="private",
        )


def build_demo(
    model: MaskGIT | ModelHolder,
    *,
    store: PhotoStore | None = None,
    training_dir: Path | None = None,
    scheduler: Any | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        model: a `MaskGIT`, or the holder of one with a menu of others.
        store: where photos are kept while the page is used.
        training_dir: folder of training runs; there is a Training tab only where it is given.
        scheduler: runs the jobs; see `scheduler.make_scheduler`.
    """
    models = as_holder(model)
    scheduler = scheduler or make_scheduler(models)
    laid_out_for = models.name
    del model  # the page must not keep it in memory
    kept = store or PhotoStore()
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=DELETE_CACHE, fill_width=True
    ) as demo:
        with gr.Row(elem_id="page-top"):
            head = f"<h1>{TITLE}</h1><p>{INTRO}</p>"
            gr.HTML(head, elem_id="page-head", apply_default_css=False, min_width=320)
            with gr.Column(min_width=300):
                menu = build_menu(models)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Generate", id="generate", elem_id="tab-generate"):
                generate = build_generate_tab(models, kept, menu, scheduler)
            with gr.Tab("Edit", id="edit", elem_id="tab-edit"):
                edit = build_edit_tab(models, kept, menu, scheduler)
            with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
                comparison = build_compare_tab(models, menu, scheduler)
            with gr.Tab("How it works", id="tour", elem_id="tab-tour") as tour_tab:
                toured = build_tour_tab(tour_tab, models, scheduler)
            if training_dir is not None:
                with gr.Tab("Training", id="training", elem_id="tab-training"):
                    build_training_tab(training_dir)
        page = PageParts(
            generate.parts,
            edit.parts,
            comparison.parts,
            generate.count,
            generate.seed,
            comparison.what,
            generate.tiles,
            toured,
        )
        wire_menu(models, menu, page, scheduler)
        wire_recipe(models, menu, page, generate.keep.load, generate.keep.dropped)
        remember(demo, models, {**edit.remembered, **comparison.remembered}, model_presets)
        add_api(models, scheduler)

        def on_open(request: gr.Request) -> Updates:
            link = list(request.query_params.multi_items())
            changed: Updates = {menu.pending: None}
            if models.name != laid_out_for:
                changed |= model_updates(models, menu, page, (None, None, None))
            changed = merged(changed, setting_updates(models, page, link_settings(models, link)))
            offer = menu.offer(models, model_in_link(link), "link", link)
            return merged(changed, offer or {})

        turn = in_line(scheduler, models)

        def on_opened() -> Any:
            models.first.run(turn)  # takes its time, and is kept
            return models.first.codebook(turn) or gr.skip()

        def on_example(run: Any) -> tuple[Any, Any]:
            # Who pressed Generate in the meantime keeps what came of it.
            first = None if run else models.first.run(turn)
            return first or gr.skip(), first or gr.skip()

        opening: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        demo.load(on_open, None, menu_outputs(menu, page), queue=False, **opening)
        demo.load(on_opened, None, menu.codebook, **opening).then(
            on_example, generate.run, [generate.player, generate.run], **opening
        )
        demo.load(lambda: models.first.tiles(turn), None, generate.tiles, **opening)
    return demo
