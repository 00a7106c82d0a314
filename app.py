"""Start the page: `python app.py`, or with another model `python app.py --checkpoint FOLDER`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

DEFAULT_CHECKPOINT = "checkpoints/scenes-flowers"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Serve the MaskGIT page on this machine.")
    parser.add_argument(
        "--checkpoint",
        default=os.environ.get("MASKGIT_MODEL") or DEFAULT_CHECKPOINT,
        help="folder of a model, a published model's name, or owner/name on the Hugging Face Hub "
        "(default: environment variable MASKGIT_MODEL, else %(default)s)",
    )
    parser.add_argument(
        "--fixed-model",
        action="store_true",
        default=os.environ.get("MASKGIT_FIXED_MODEL", "") not in ("", "0"),
        help="no model menu on the page (also: environment variable MASKGIT_FIXED_MODEL=1)",
    )
    parser.add_argument("--host", default=None, help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port (default 7860 or the next)")
    parser.add_argument("--mcp", action="store_true", help="serve the API to MCP clients too")
    parser.add_argument(
        "--metrics",
        action="store_true",
        default=os.environ.get("MASKGIT_METRICS", "") not in ("", "0"),
        help="serve counters at /metrics (also: environment variable MASKGIT_METRICS=1)",
    )
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link")
    return parser.parse_args(argv)


def quiet_environment() -> None:
    """Keep Gradio and its libraries off the network; must run before they are imported.

    HF_HUB_OFFLINE is left to the user: nothing asks the Hub unless a published model is wanted.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("GRADIO_CACHE_EXAMPLES", "false")


def main(argv: Sequence[str] | None = None) -> int:
    """Load the model and serve the page; returns the exit status."""
    arguments = parse_arguments(argv)
    quiet_environment()

    from demo.zero_gpu import load_spaces

    load_spaces()  # where it is installed, it must come before torch

    import torch

    from maskgit_core import CheckpointError, MaskGIT
    from maskgit_core.hub import resolve_checkpoint

    torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))
    try:
        folder = resolve_checkpoint(arguments.checkpoint)
        model = MaskGIT.from_pretrained(arguments.checkpoint)
    except (CheckpointError, ValueError, OSError) as error:
        print(f"app.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2

    from demo.health import add_routes
    from demo.ledger import log_to_stderr
    from demo.models import ModelHolder, menu_entries
    from demo.scheduler import make_scheduler
    from demo.ui import build_demo, launch_options

    entries = menu_entries(DEFAULT_CHECKPOINT, (model.name, arguments.checkpoint))
    models = ModelHolder(model, entries, source=folder, fixed=arguments.fixed_model)
    del model  # the holder alone keeps it, so that a switch frees its memory
    scheduler = make_scheduler(models)
    log_to_stderr()
    demo = build_demo(models, scheduler=scheduler)
    # The scheduler bounds what waits for the model; this bounds the rest, such as previews.
    demo.queue(default_concurrency_limit=1, max_size=128)
    options = launch_options() | {"share": arguments.share, "mcp_server": arguments.mcp}
    options.setdefault("max_threads", 80)  # each visitor in line keeps one, asleep
    app, _, _ = demo.launch(
        server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **options
    )
    add_routes(app, models, scheduler, metrics=arguments.metrics)
    models.first.warm_up()
    demo.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
