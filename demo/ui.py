"""The page: a head, its tabs, and what happens when it opens. Widgets and wiring only."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .api import add_api
from .controls import asset, codebook_holder
from .example import FirstResult
from .photos import PhotoStore
from .recipes import settings_from_link
from .tab_compare import build_compare_tab
from .tab_edit import build_edit_tab
from .tab_generate import build_generate_tab, setting_updates
from .tab_tour import build_tour_tab

TITLE = "MaskGIT, step by step"
INTRO = (
    "This model paints by filling in blanks. It starts from an empty grid and decides a few cells "
    "at a time, the surest first, until an image is there."
)


def page_theme() -> gr.themes.Base:
    """System fonts and one accent colour; nothing is fetched."""
    return gr.themes.Default(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "Menlo", "monospace"],
    ).set(
        # The default greys are too faint to read comfortably.
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        # White on the usual blue has too little contrast.
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_large_text_size="*text_md",
        button_large_text_weight="600",
    )


def launch_options() -> dict[str, Any]:
    """Arguments of `Blocks.launch` that belong to the page itself."""
    return {
        "theme": page_theme(),
        "css": asset("page.css"),
        "footer_links": ["api"],
        "max_file_size": "40mb",
        "run_history": False,
        "share": False,
    }


def build_demo(
    model: Any, *, first_result: FirstResult | None = None, store: PhotoStore | None = None
) -> gr.Blocks:
    """Build the page.

    Args:
        model: a `MaskGIT`.
        first_result: what is shown before the first click; made here if not given.
        store: where photos are kept while the page is used.
    """
    first = first_result or FirstResult(model)
    kept = store or PhotoStore()
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True
    ) as demo:
        gr.HTML(f"<h1>{TITLE}</h1><p>{INTRO}</p>", elem_id="page-head", apply_default_css=False)
        codebook = codebook_holder()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Generate", id="generate", elem_id="tab-generate"):
                generate = build_generate_tab(model, kept)
            with gr.Tab("Edit", id="edit", elem_id="tab-edit"):
                build_edit_tab(model, kept)
            with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
                build_compare_tab(model)
            with gr.Tab("How it works", id="tour", elem_id="tab-tour") as tour_tab:
                build_tour_tab(tour_tab, model)
        add_api(model)

        def on_open(request: gr.Request) -> list[Any]:
            link = settings_from_link(list(model.classes), request.query_params.multi_items())
            return setting_updates(link)

        opening: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        demo.load(on_open, None, generate.settings, queue=False, **opening)
        demo.load(
            lambda: (first.codebook(), first.run(), first.run()),
            None,
            [codebook, generate.player, generate.run],
            **opening,
        )
        demo.load(first.tiles, None, generate.tiles, **opening)
    return demo
