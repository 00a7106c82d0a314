"""How Gradio is launched: every setting that matters on a public page, chosen in this one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from demo.api import FUNCTIONS
from demo.hardening.gate import MAX_FILE_BYTES, Gate
from demo.hardening.gradio_patches import guard_gradio
from demo.hardening.storage import KEEP_SECONDS, swept
from demo.tabs.widgets import asset

# Events of all visitors together. The runner has a smaller bound of its own on jobs that wait
# for the model (`queue.MAX_WAITING`); this one bounds the rest too, such as previews.
MAX_EVENTS = 128
# A job that waits for its turn keeps a thread, asleep. There may be as many as wait and as share a
# batch (48 + 16), and what does not wait needs some as well.
MAX_THREADS = 80

# For `gr.Blocks`: every ten minutes, files that are older than the page keeps them.
DELETE_CACHE = (600, KEEP_SECONDS)


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


def queue_options() -> dict[str, Any]:
    """Arguments of `Blocks.queue`."""
    return {
        # What does not ask for more runs one at a time. Jobs for the model do ask: all of them may
        # come in, and the runner keeps the queue.
        "default_concurrency_limit": 1,
        # Past it a visitor is told that the queue is full, at once instead of in an hour.
        "max_size": MAX_EVENTS,
        # No call past the queue; the functions for programs queue like everybody else.
        "api_open": False,
    }


def launch_options(
    *, share: bool = False, mcp: bool = False, routes: Sequence[BaseRoute] = ()
) -> dict[str, Any]:
    """Arguments of `Blocks.launch`. Changes a few habits of Gradio too, see `gradio_patches`.

    Args:
        share: ask Gradio for a public link.
        mcp: serve the functions for programs to MCP clients too.
        routes: further addresses, such as `health.health_routes`; the gate must let them through.
    """
    guard_gradio()
    gate = Middleware(Gate, functions=FUNCTIONS, mcp=mcp)
    return {
        "theme": page_theme(),
        "css": asset("page.css"),
        "footer_links": ["api"],
        # Refused while it arrives; the pixels are counted before a photo is decoded.
        "max_file_size": MAX_FILE_BYTES,
        # No file of this machine is served but results: see `gate`, also for the bounds of requests
        # and for the headers of answers. With nothing allowed there is nothing to block.
        "allowed_paths": [],
        "app_kwargs": {"middleware": [gate], "lifespan": swept, "routes": list(routes)},
        # The text of an unexpected error may hold a path; ours are sentences and are shown.
        "show_error": False,
        # Other sites' scripts cannot call a page that runs on somebody's own machine.
        "strict_cors": True,
        # Numbers on all visitors, and what each ran, are nobody's business.
        "enable_monitoring": False,
        "run_history": False,
        # Would need Node beside Python, to draw what the browser draws anyway.
        "ssr_mode": False,
        "pwa": False,
        "max_threads": MAX_THREADS,
        # Each takes about 0.3 MB, one call of the API too, and is kept for long after its end; past
        # this many the longest unused one is forgotten. No more visitors fit the queue in any case.
        "state_session_capacity": MAX_EVENTS,
        "share": share,
        "mcp_server": mcp,
    }
