"""Start the page: `python app.py`, or with another model `python app.py --checkpoint FOLDER`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

DEFAULT_CHECKPOINT = "checkpoints/scenes-flowers"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Serve the MaskGIT page on this machine.")
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT, help="folder of a model")
    parser.add_argument("--host", default=None, help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port (default 7860 or the next)")
    parser.add_argument("--mcp", action="store_true", help="serve the API to MCP clients too")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link")
    return parser.parse_args(argv)


def quiet_environment() -> None:
    """Keep Gradio and its libraries off the network; must run before they are imported."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("GRADIO_CACHE_EXAMPLES", "false")


def main(argv: Sequence[str] | None = None) -> int:
    """Load the model and serve the page; returns the exit status."""
    arguments = parse_arguments(argv)
    quiet_environment()

    import torch

    from maskgit_core import CheckpointError, MaskGIT

    torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))
    try:
        model = MaskGIT.from_pretrained(arguments.checkpoint)
    except (CheckpointError, ValueError, OSError) as error:
        print(f"app.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2

    # Recipes and the API name the model by its folder.
    model.name = Path(arguments.checkpoint).name

    from demo.example import FirstResult
    from demo.ui import build_demo, launch_options

    first = FirstResult(model)
    demo = build_demo(model, first_result=first)
    demo.queue(default_concurrency_limit=1, max_size=32)
    options = launch_options() | {"share": arguments.share, "mcp_server": arguments.mcp}
    demo.launch(
        server_name=arguments.host, server_port=arguments.port, prevent_thread_lock=True, **options
    )
    first.warm_up()
    demo.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
