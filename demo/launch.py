"""How Gradio is launched: every setting that matters on a public page, chosen in this one place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from demo.api import FUNCTIONS
from demo.hardening.connections import bound_connections
from demo.hardening.gate import LOCAL_NAMES, MAX_FILE_BYTES, Gate, host_name
from demo.hardening.gradio_patches import patch_gradio
from demo.hardening.storage import KEEP_SECONDS, swept
from demo.hardening.turns import MAX_EVENTS, take_turns
from demo.hardening.uploads import bound_uploads
from demo.tabs.widgets import asset

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


def host_names(host: str | None, *, share: bool) -> tuple[str, ...] | None:
    """Names under which the page answers; None is any.

    A page on this machine alone has a few. Where a proxy on the same machine passes others on,
    MASKGIT_ALLOWED_HOSTS names them, with commas; * is any.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME") or LOCAL_NAMES[0]
    more = [name for name in os.environ.get("MASKGIT_ALLOWED_HOSTS", "").split(",") if name]
    local = host_name(host) in LOCAL_NAMES or host_name(f"[{host}]") in LOCAL_NAMES
    if share or not local or "*" in more or os.environ.get("SPACE_ID"):
        return None
    return (*LOCAL_NAMES, *(name.strip().lower() for name in more))


def queue_options() -> dict[str, Any]:
    """Arguments of `Blocks.queue`."""
    return {
        # Who is next, and how many of one visitor run at once, is decided in `hardening.turns`; one
        # at a time would let a single slow photo hold up everybody's. `turns` also bounds them.
        "default_concurrency_limit": None,
        "max_size": None,
        # No call past the queue; the functions for programs queue like everybody else.
        "api_open": False,
    }


def launch_options(
    *,
    host: str | None = None,
    share: bool = False,
    mcp: bool = False,
    routes: Sequence[BaseRoute] = (),
) -> dict[str, Any]:
    """Arguments of `Blocks.launch`. Changes a few habits of Gradio too, see `gradio_patches`.

    Args:
        host: address to listen on; None is Gradio's choice.
        share: ask Gradio for a public link.
        mcp: serve the functions for programs to MCP clients too.
        routes: further addresses, such as `health.health_routes`; the gate must let them through.
    """
    patch_gradio()
    take_turns()
    bound_uploads()
    bound_connections()
    gate = Middleware(Gate, functions=FUNCTIONS, mcp=mcp, names=host_names(host, share=share))
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
