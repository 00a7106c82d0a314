"""Command line: one parser a command, one clear line and exit code 2 on bad input."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from maskgit_core import cli_training
from maskgit_core.config import (
    GUIDANCE_SCHEDULES,
    ORDERS,
    SCHEDULES,
    SamplingConfig,
    to_dict,
)

DEFAULT_CHECKPOINT = "checkpoints/scenes-flowers"
PROGRAM = "python -m maskgit_core"
BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code (2 for bad input, 130 after Ctrl-C)."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    args = build_parser().parse_args(arguments)
    # torch takes a second to load; --help and typing errors need not wait for it.
    from maskgit_core.checkpoint import CheckpointError

    try:
        return args.run(args) or 0
    except (ValueError, CheckpointError, OSError) as error:
        print(f"{PROGRAM} {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, add_arguments, run, text in (
        ("sample", _sample_arguments, _sample, "generate images of classes"),
        ("inpaint", _inpaint_arguments, _inpaint, "repaint a part of a photo"),
        (
            "train-tokenizer",
            cli_training.tokenizer_arguments,
            cli_training.train_tokenizer,
            "train the VQ tokenizer on a folder of photos",
        ),
        (
            "train-transformer",
            cli_training.transformer_arguments,
            cli_training.train_transformer,
            "train the masked transformer on a tokenizer's tokens",
        ),
        ("evaluate", _evaluate_arguments, _evaluate, "measure a checkpoint on held-out photos"),
        ("convert", _convert_arguments, _convert, "convert published weights to a checkpoint"),
        ("benchmark", _benchmark_arguments, _benchmark, "measure speed and memory"),
        ("info", _info_arguments, _info, "describe a checkpoint"),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint."""
    parser.add_argument(
        "--checkpoint", default=DEFAULT_CHECKPOINT, help="checkpoint folder or known name"
    )


def _sampling_arguments(parser: argparse.ArgumentParser) -> None:
    unset = argparse.SUPPRESS
    parser.add_argument("--num-steps", type=int, default=unset, help="decoding steps")
    parser.add_argument("--order", choices=ORDERS, default=unset, help="reveal order")
    parser.add_argument("--schedule", choices=SCHEDULES, default=unset, help="tokens a step")
    parser.add_argument("--temperature", type=float, default=unset, help="divides the logits")
    parser.add_argument("--guidance-scale", type=float, default=unset, help="1 is off")
    parser.add_argument("--guidance-schedule", choices=GUIDANCE_SCHEDULES, default=unset)
    parser.add_argument(
        "--choice-temperature", type=float, default=unset, help="noise on the confidence"
    )
    parser.add_argument("--top-k", type=int, default=unset, help="keep the k likeliest codes")
    parser.add_argument("--top-p", type=float, default=unset, help="keep this share of probability")
    parser.add_argument("--seed", type=int, default=0, help="image i uses seed + i")


def sampling_config(args: argparse.Namespace, default: SamplingConfig) -> SamplingConfig:
    """Return the checkpoint's settings with those that were given on the command line."""
    given = {key: getattr(args, key) for key in to_dict(default) if hasattr(args, key)}
    return SamplingConfig(**{**to_dict(default), **given})


def _label(text: str) -> str | int | None:
    if text.casefold() == "none":
        return None
    return int(text) if text.lstrip("-").isdigit() else text


def _save_png(image: object, path: str) -> None:
    from maskgit_core.checkpoint import write_atomically

    write_atomically(path, lambda temporary: image.save(temporary, "PNG"))  # type: ignore[attr-defined]
    print(path)


def _sample_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    parser.add_argument(
        "--labels", nargs="+", default=None, metavar="CLASS", help="names or numbers; all if unset"
    )
    parser.add_argument("--count", type=int, default=1, help="images a class")
    parser.add_argument("--columns", type=int, default=None, help="images a row of the sheet")
    parser.add_argument("--out", default="samples.png", help="PNG to write")
    _sampling_arguments(parser)


def _sample(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from maskgit_core.config import check_range
    from maskgit_core.pipeline import MaskGIT
    from maskgit_core.sheets import tile

    check_range("count", args.count, 1, 4096, whole=True)
    if args.columns is not None:
        check_range("columns", args.columns, 1, 4096, whole=True)
    model = MaskGIT.from_pretrained(args.checkpoint)
    config = sampling_config(args, model.sampling)
    named = [_label(text) for text in args.labels] if args.labels else model.classes
    labels = [label for label in named for _ in range(args.count)]
    steps = model.generate_steps(labels, config, args.seed)
    for state in tqdm(steps, total=min(config.num_steps, model.grid_size**2), unit="step"):
        tokens = state.tokens
    columns = args.columns or (args.count if args.count > 1 else min(len(labels), 4))
    _save_png(tile(model.decode(tokens.cpu()), columns), args.out)


def _inpaint_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    parser.add_argument("--image", required=True, help="photo")
    parser.add_argument("--mask", required=True, help="greyscale image, white = repaint")
    parser.add_argument("--label", type=_label, default=None, help="class of the new content")
    parser.add_argument("--out", default="inpainted.png", help="PNG to write")
    _sampling_arguments(parser)


def _inpaint(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from maskgit_core.images import load_image
    from maskgit_core.pipeline import MaskGIT

    model = MaskGIT.from_pretrained(args.checkpoint)
    config = sampling_config(args, model.sampling)
    image = load_image(args.image, keep_alpha=True)
    mask = load_image(args.mask).convert("L")
    plan = model.plan_inpaint(image, mask)
    steps = model.edit_steps(plan, args.label, config, args.seed)
    for state in tqdm(steps, total=config.num_steps, unit="step"):
        tokens = state.tokens
    _save_png(model.finish(plan, tokens), args.out)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    from maskgit_core.evaluation import add_evaluate_arguments

    add_evaluate_arguments(parser)


def _evaluate(args: argparse.Namespace) -> None:
    from maskgit_core.evaluation import run_evaluate

    run_evaluate(args)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, help="published tokenizer file")
    parser.add_argument("--transformer", required=True, help="published transformer file")
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument("--num-heads", type=int, default=None, help="where it cannot be told")
    parser.add_argument("--tokenizer-config", default=None, help="yaml or json of the tokenizer")
    parser.add_argument("--classes", default=None, help="text file with one class name a line")


def _convert(args: argparse.Namespace) -> None:
    from maskgit_core.converters import convert_checkpoint

    convert_checkpoint(
        args.tokenizer,
        args.transformer,
        args.out,
        num_heads=args.num_heads,
        tokenizer_config=args.tokenizer_config,
        classes_file=args.classes,
    )
    print(args.out)


def _benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_CHECKPOINT, help="checkpoint folder or name")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each measurement")
    parser.add_argument("--json", default=None, help="also write the numbers here")
    parser.add_argument("--app", default="app.py", help="page to start; empty leaves it out")


def _benchmark(args: argparse.Namespace) -> None:
    from maskgit_core.benchmark import run_benchmark

    run_benchmark(args)


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _info(args: argparse.Namespace) -> None:
    from maskgit_core.pipeline import MaskGIT

    model = MaskGIT.from_pretrained(args.checkpoint)
    folder = Path(args.checkpoint)
    size = (
        sum(os.path.getsize(p) for p in folder.iterdir() if p.is_file()) if folder.is_dir() else 0
    )
    facts = {
        "checkpoint": str(args.checkpoint),
        "megabytes": round(size / 1e6, 1),
        "image_size": model.image_size,
        "grid_size": model.grid_size,
        "codebook_size": model.codebook_size,
        "tokenizer_parameters": sum(p.numel() for p in model.tokenizer.parameters()),
        "transformer_parameters": sum(p.numel() for p in model.transformer.parameters()),
        "classes": model.classes,
        "sampling": to_dict(model.sampling),
    }
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name.replace('_', ' ')}: {shown}")
