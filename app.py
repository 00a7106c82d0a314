"""Start the page: `python app.py`, or with another model `python app.py --checkpoint FOLDER`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from demo.environment import load_spaces, prepare_environment
from demo.startup import SAY_SECONDS, Stopping, check_address, check_folder
from maskgit_core.cli.streams import outlive_readers
from maskgit_core.config import PRECISIONS
from maskgit_core.weights.shipped import SHIPPED_NAME, shipped_folder

if TYPE_CHECKING:
    from demo.serving.models import ModelHolder

AUTO_PRECISION = "auto"


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Serve the MaskGIT page on this machine.")
    parser.add_argument(
        "--checkpoint",
        default=os.environ.get("MASKGIT_MODEL") or SHIPPED_NAME,
        help="folder of a model, a published model's name, or owner/name on the Hugging Face Hub "
        "(default: environment variable MASKGIT_MODEL, else %(default)s)",
    )
    parser.add_argument(
        "--fixed-model",
        action="store_true",
        default=os.environ.get("MASKGIT_FIXED_MODEL", "") not in ("", "0"),
        help="no model menu on the page (also: environment variable MASKGIT_FIXED_MODEL=1)",
    )
    parser.add_argument(
        "--precision",
        choices=(*PRECISIONS, AUTO_PRECISION),
        default=os.environ.get("MASKGIT_PRECISION") or usual_precision(),
        help="of the transformer's products; bfloat16 and int8 are faster on processors that have "
        "them, and make other images of a seed; auto, usual on a Space, is int8 on such a "
        "processor, else float32 (also: environment variable MASKGIT_PRECISION)",
    )
    parser.add_argument("--host", default=None, help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=None, help="port (default 7860 or the next)")
    parser.add_argument(
        "--training-dir",
        default=None,
        metavar="DIR",
        help="show curves and sheets of the training runs in this folder, live, in a tab",
    )
    parser.add_argument(
        "--mcp", action="store_true", help="serve the API to MCP clients too (needs gradio[mcp])"
    )
    parser.add_argument(
        "--metrics",
        action="store_true",
        default=os.environ.get("MASKGIT_METRICS", "") not in ("", "0"),
        help="serve counters at /metrics (also: environment variable MASKGIT_METRICS=1)",
    )
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link")
    return parser.parse_args(argv)


def usual_precision() -> str:
    """On a Space, where many visitors share two cores, what serves most of them."""
    return AUTO_PRECISION if os.environ.get("SPACE_ID") else "float32"


def main(argv: Sequence[str] | None = None) -> int:
    """Load the model and serve the page; returns the exit status."""
    outlive_readers()
    with Stopping() as stopping:
        return start(parse_arguments(argv), stopping)


def start(arguments: argparse.Namespace, stopping: Stopping) -> int:
    """Check what was asked for, load the model and serve; returns the exit status.

    Args:
        arguments: of the command line.
        stopping: waits for the signal to end.
    """
    if arguments.mcp and importlib.util.find_spec("mcp") is None:
        print('app.py: --mcp needs one more package: pip install "gradio[mcp]"', file=sys.stderr)
        return 2
    runs = Path(arguments.training_dir) if arguments.training_dir else None
    if runs is not None and not runs.is_dir():
        print(f"app.py: training-dir must be a folder; {runs} is not one", file=sys.stderr)
        return 2
    prepare_environment()
    try:
        check_address(arguments.host, arguments.port)
        check_folder(os.environ["GRADIO_TEMP_DIR"])
    except ValueError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    load_spaces()  # where it is installed, it must come before torch

    from maskgit_core import CheckpointError

    try:
        models = load_models(arguments.checkpoint, arguments.precision, arguments.fixed_model)
    except (CheckpointError, ValueError, OSError) as error:
        print(f"app.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return serve(models, arguments, runs, stopping)


def load_models(checkpoint: str, precision: str, fixed: bool) -> ModelHolder:
    """Load the model that the page starts with.

    Args:
        checkpoint, precision: as on the command line.
        fixed: whether the page has no model menu.

    Raises:
        CheckpointError, ValueError, OSError: it cannot be loaded.
    """
    import torch

    from demo.serving.catalogue import menu_entries
    from demo.serving.models import ModelHolder, load_model
    from maskgit_core import MaskGIT
    from maskgit_core.devices.malloc import keep_freed_memory
    from maskgit_core.devices.precision import quick_precision
    from maskgit_core.weights.hub import resolve_checkpoint

    keep_freed_memory()
    torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))
    if precision == AUTO_PRECISION:
        precision = quick_precision()
    folder = resolve_checkpoint(checkpoint)
    model = MaskGIT.from_pretrained(checkpoint, precision=precision)
    entries = menu_entries(str(shipped_folder()), (model.name, checkpoint))
    # The holder alone keeps the model, so that a switch frees its memory.
    load = partial(load_model, precision=precision)
    return ModelHolder(model, entries, source=folder, fixed=fixed, load=load)


def serve(
    models: ModelHolder, arguments: argparse.Namespace, runs: Path | None, stopping: Stopping
) -> int:
    """Serve the page until the process is stopped.

    Args:
        models: holds the model.
        arguments: of the command line.
        runs: folder of training runs to show.
        stopping: waits for the signal to end.

    Returns:
        The exit status, where the server could not start.
    """
    from demo.launch import launch_options, queue_options
    from demo.runs.example import first_result, in_turn
    from demo.serving.health import health_routes
    from demo.serving.metrics import log_to_stderr
    from demo.serving.runner import make_runner
    from demo.ui import build_demo

    runner = make_runner(models)
    log_to_stderr()
    demo = build_demo(models, training_dir=runs, runner=runner)
    demo.queue(**queue_options())
    routes = health_routes(models, runner, metrics=arguments.metrics)
    options = launch_options(
        host=arguments.host, share=arguments.share, mcp=arguments.mcp, routes=routes
    )
    place = {"server_name": arguments.host, "server_port": arguments.port}
    try:
        demo.launch(prevent_thread_lock=True, **place, **options)
    except OSError as error:  # somebody took the port while the model was loaded
        print(f"app.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    first_result(models).warm_up(in_turn(runner))

    def end() -> None:
        runner.close()
        time.sleep(SAY_SECONDS)
        demo.close(verbose=False)

    status = stopping.wait(end)
    os._exit(status)  # a batch may still be computed: nobody waits for it any more


if __name__ == "__main__":
    sys.exit(main())
