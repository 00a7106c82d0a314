"""Command line: one parser a command, one clear line and exit code 2 on bad input."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from maskgit_core.cli import options
from maskgit_core.cli.benchmark import add_benchmark_arguments, run_benchmark
from maskgit_core.cli.convert import add_convert_arguments, run_convert
from maskgit_core.cli.evaluate import add_evaluate_arguments, run_evaluate
from maskgit_core.cli.info import add_info_arguments, run_info
from maskgit_core.cli.inpaint import add_inpaint_arguments, run_inpaint
from maskgit_core.cli.outpaint import add_outpaint_arguments, run_outpaint
from maskgit_core.cli.sample import add_sample_arguments, run_sample
from maskgit_core.cli.signals import stopped_by_signals
from maskgit_core.cli.streams import (
    READER_GONE,
    complain,
    lead_nowhere,
    open_closed_streams,
)
from maskgit_core.cli.train import add_train_arguments, run_train
from maskgit_core.cli.train_tokenizer import train_tokenizer
from maskgit_core.cli.train_transformer import train_transformer
from maskgit_core.devices.malloc import keep_freed_memory

PROGRAM = "python -m maskgit_core"
BAD_INPUT = 2
# Commands of the page, which were here once.
MOVED = {
    "loadtest": "python -m demo.tools.loadtest",
    "deploy-space": "python -m demo.tools.deploy_space",
}

Command = tuple[
    Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int | None], str
]

# Its options, what it runs, and what it does: one entry a command.
COMMANDS: dict[str, Command] = {
    "sample": (add_sample_arguments, run_sample, "generate images of classes"),
    "inpaint": (add_inpaint_arguments, run_inpaint, "repaint a part of a photo"),
    "outpaint": (add_outpaint_arguments, run_outpaint, "carry a photo on beyond its edges"),
    "train": (add_train_arguments, run_train, "a folder of photos in, a model of them out"),
    "train-tokenizer": (
        options.tokenizer_arguments,
        train_tokenizer,
        "train the VQ tokenizer on a folder of photos",
    ),
    "train-transformer": (
        options.transformer_arguments,
        train_transformer,
        "train the masked transformer on a tokenizer's tokens",
    ),
    "evaluate": (add_evaluate_arguments, run_evaluate, "measure a checkpoint on held-out photos"),
    "convert": (add_convert_arguments, run_convert, "convert published weights to a checkpoint"),
    "benchmark": (add_benchmark_arguments, run_benchmark, "measure speed and memory"),
    "info": (add_info_arguments, run_info, "describe a checkpoint"),
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse puts the usage in front, many lines here."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        complain(f"{self.prog}: {' '.join(message.split())}; --help shows the usage")
        self.exit(BAD_INPUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code, as `run_command`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    open_closed_streams()
    if words and words[0] in MOVED:
        complain(f"{PROGRAM}: {words[0]} is now `{MOVED[words[0]]}`")
        return BAD_INPUT
    return run_command(build_parser(), words)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse the arguments and call what the parser sets as `run`.

    Args:
        parser: sets `run`, a function of the parsed arguments that returns an exit code or None.
        arguments: words of the command line; None takes this process's own.

    Returns:
        The exit code: 2 and one clear line for bad input, 130 after Ctrl-C, 143 after SIGTERM, 141
        where whoever read the output has gone.
    """
    open_closed_streams()
    code = BAD_INPUT
    try:
        code = _run_parsed(parser, arguments)
        # Now, not at the end of the process: then there is no exit code for it.
        sys.stdout.flush()
    except BrokenPipeError:
        lead_nowhere(sys.stdout, sys.stderr)
        return READER_GONE
    except OSError as error:
        lead_nowhere(sys.stdout)
        if code == 0:
            complain(f"{parser.prog}: the output cannot be written: {error.strerror}")
        return code or BAD_INPUT
    return code


def _run_parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Each try of a download would be told, twice; whether it failed is said in one line of ours.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # What Pillow finds odd about a photo; whether it can be read is said in our words.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    # It takes a second to load; --help and typing errors need not wait for it. A signal meanwhile
    # ends the process: raised inside an import that C code drives, an exception may be lost.
    import torch  # noqa: F401

    from maskgit_core.files import CheckpointError

    keep_freed_memory()
    try:
        with stopped_by_signals():
            return args.run(args) or 0
    except BrokenPipeError:
        raise
    except (ValueError, CheckpointError, OSError) as error:
        rank = os.environ.get("RANK", "0")
        of_rank = f" (rank {rank})" if rank != "0" else ""
        name = f" {args.command}" if hasattr(args, "command") else ""
        complain(f"{parser.prog}{name}{of_rank}: {' '.join(str(error).split())}")
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        return getattr(stop, "code", 130)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command."""
    parser = Parser(prog=PROGRAM, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (add_arguments, run, text) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        add_arguments(command)
        command.set_defaults(run=run)
    return parser
