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

    import torch

    from maskgit_core import CheckpointError, MaskGIT
    from maskgit_core.allocator import keep_freed_memory
    from maskgit_core.hub import resolve_checkpoint

    keep_freed_memory()
    torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))
    try:
        folder = resolve_checkpoint(arguments.checkpoint)
        model = MaskGIT.from_pretrained(arguments.checkpoint)
    except (CheckpointError, ValueError, OSError) as error:
        print(f"app.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2

    from demo.models import ModelHolder, menu_entries
    from demo.ui import build_demo, launch_options

    entries = menu_entries(DEFAULT_CHECKPOINT, (model.name, arguments.checkpoint))
    models = ModelHolder(model, entries, source=folder, fixed=arguments.fixed_model)
    del model  # the holder alone keeps it, so that a switch frees its memory
    demo = build_demo(models)
    demo.queue(default_concurrency_limit=1, max_size=32)
    options = launch_options() | {"share": arguments.share, "mcp_server": arguments.mcp}
    demo.launch(
        server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **options
    )
    models.first.warm_up()
    demo.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
