"""Command line: one parser a command, one clear line and exit code 2 on bad input."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from maskgit_core.cli import options, training
from maskgit_core.cli.signals import stopped_by_signals
from maskgit_core.cli.train import add_train_arguments, run_train
from maskgit_core.config import (
    GUIDANCE_SCHEDULES,
    MAX_SEED,
    ORDERS,
    PRECISIONS,
    SCHEDULES,
    SamplingConfig,
    check_range,
    to_dict,
)
from maskgit_core.devices.malloc import keep_freed_memory

DEFAULT_CHECKPOINT = "checkpoints/scenes-flowers"
PROGRAM = "python -m maskgit_core"
BAD_INPUT = 2
# Commands of the page, which were here once.
MOVED = {
    "loadtest": "python -m demo.tools.loadtest",
    "deploy-space": "python -m demo.tools.deploy_space",
}
SAMPLE_BATCH = 32


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse puts the usage in front, many lines here."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(BAD_INPUT, f"{self.prog}: {' '.join(message.split())}; --help shows the usage\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code (2 for bad input, 130 after Ctrl-C, 143 after SIGTERM)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in MOVED:
        print(f"{PROGRAM}: {words[0]} is now `{MOVED[words[0]]}`", file=sys.stderr)
        return BAD_INPUT
    return run_command(build_parser(), words)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse the arguments and call what the parser sets as `run`.

    Args:
        parser: sets `run`, a function of the parsed arguments that returns an exit code or None.
        arguments: words of the command line; None takes this process's own.

    Returns:
        The exit code: 2 and one clear line for bad input, 130 after Ctrl-C, 143 after SIGTERM.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    args = parser.parse_args(arguments)
    # torch takes a second to load; --help and typing errors need not wait for it.
    from maskgit_core.weights.checkpoint import CheckpointError

    keep_freed_memory()
    try:
        with stopped_by_signals():
            return args.run(args) or 0
    except (ValueError, CheckpointError, OSError) as error:
        rank = os.environ.get("RANK", "0")
        of_rank = f" (rank {rank})" if rank != "0" else ""
        name = f" {args.command}" if hasattr(args, "command") else ""
        print(f"{parser.prog}{name}{of_rank}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        return getattr(stop, "code", 130)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command."""
    parser = Parser(prog=PROGRAM, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, add_arguments, run, text in (
        ("sample", _sample_arguments, _sample, "generate images of classes"),
        ("inpaint", _inpaint_arguments, _inpaint, "repaint a part of a photo"),
        ("train", add_train_arguments, run_train, "a folder of photos in, a model of them out"),
        (
            "train-tokenizer",
            options.tokenizer_arguments,
            training.train_tokenizer,
            "train the VQ tokenizer on a folder of photos",
        ),
        (
            "train-transformer",
            options.transformer_arguments,
            training.train_transformer,
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
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the transformer's products; bfloat16 and int8 are faster where the processor has "
        "them, and make other images of a seed (default: %(default)s)",
    )


def sampling_config(args: argparse.Namespace, default: SamplingConfig) -> SamplingConfig:
    """Return the checkpoint's settings with those that were given on the command line."""
    given = {key: getattr(args, key) for key in to_dict(default) if hasattr(args, key)}
    return SamplingConfig(**{**to_dict(default), **given})


def _label(text: str, classes: Sequence[str]) -> str | int | None:
    """Return a class name, its number, or None for "none"; a name that looks like either wins."""
    if text in classes:
        return text
    if text.casefold() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        return text


def _save_png(image: object, path: str) -> None:
    from maskgit_core.weights.checkpoint import write_atomically

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
    import torch
    from tqdm import tqdm

    from maskgit_core.data.contact_sheet import tile
    from maskgit_core.pipeline import MAX_IMAGES, MaskGIT

    check_range("count", args.count, 1, MAX_IMAGES, whole=True)
    if args.columns is not None:
        check_range("columns", args.columns, 1, MAX_IMAGES, whole=True)
    model = MaskGIT.from_pretrained(args.checkpoint, precision=args.precision)
    config = sampling_config(args, model.sampling)
    names = args.labels or [str(number) for number in range(len(model.classes))]
    labels = [_label(name, model.classes) for name in names for _ in range(args.count)]
    check_range("number of images", len(labels), 1, MAX_IMAGES, whole=True)
    check_range("seed", args.seed, 0, MAX_SEED + 1 - len(labels), whole=True)
    for label in labels:
        model.label_id(label)
    starts = range(0, len(labels), SAMPLE_BATCH)
    images = []
    with tqdm(total=min(config.num_steps, model.grid_size**2) * len(starts), unit="step") as bar:
        for start in starts:
            batch = labels[start : start + SAMPLE_BATCH]
            for state in model.generate_steps(batch, config, args.seed + start):
                tokens = state.tokens
                bar.update()
            images.append(model.decode(tokens.cpu()))
    columns = args.columns or (args.count if args.count > 1 else 4)
    _save_png(tile(torch.cat(images), min(columns, len(labels))), args.out)


def _inpaint_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    parser.add_argument("--image", required=True, help="photo")
    parser.add_argument(
        "--mask", required=True, help="image, white (or, on transparency, opaque) = repaint"
    )
    parser.add_argument("--label", default="none", help="class of the new content, or none")
    parser.add_argument("--out", default="inpainted.png", help="PNG to write")
    _sampling_arguments(parser)


def _inpaint(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from maskgit_core.data.images import load_image
    from maskgit_core.editing.masks import drawn_mask
    from maskgit_core.pipeline import MaskGIT

    model = MaskGIT.from_pretrained(args.checkpoint, precision=args.precision)
    config = sampling_config(args, model.sampling)
    image = load_image(args.image, keep_alpha=True)
    mask = drawn_mask(load_image(args.mask, keep_alpha=True))
    plan = model.plan_inpaint(image, mask)
    label = _label(args.label, model.classes)
    steps = model.edit_steps(plan, label, config, args.seed)
    total = min(config.num_steps, int(plan.token_mask.sum()))
    for state in tqdm(steps, total=total, unit="step"):
        tokens = state.tokens
    _save_png(model.finish(plan, tokens), args.out)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    from maskgit_core.cli.evaluate import add_evaluate_arguments

    add_evaluate_arguments(parser)


def _evaluate(args: argparse.Namespace) -> None:
    from maskgit_core.cli.evaluate import run_evaluate

    run_evaluate(args)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tokenizer", required=True, help="published tokenizer file")
    parser.add_argument("--transformer", required=True, help="published transformer file")
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument("--num-heads", type=int, default=None, help="where it cannot be told")
    parser.add_argument("--num-classes", type=int, default=None, help="where it cannot be told")
    parser.add_argument("--tokenizer-config", default=None, help="yaml or json of the tokenizer")
    parser.add_argument("--classes", default=None, help="text file with one class name a line")


def _convert(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from maskgit_core.weights.convert import convert_checkpoint

    with tqdm(total=3, unit="part", delay=1) as bar:
        convert_checkpoint(
            args.tokenizer,
            args.transformer,
            args.out,
            num_heads=args.num_heads,
            num_classes=args.num_classes,
            tokenizer_config=args.tokenizer_config,
            classes_file=args.classes,
            advance=bar.update,
        )
    print(args.out)


def _benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    from maskgit_core.cli.benchmark import add_benchmark_arguments

    add_benchmark_arguments(parser, DEFAULT_CHECKPOINT)


def _benchmark(args: argparse.Namespace) -> None:
    from maskgit_core.cli.benchmark import run_benchmark

    run_benchmark(args)


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _info(args: argparse.Namespace) -> None:
    from maskgit_core.pipeline import MaskGIT
    from maskgit_core.weights.checkpoint import load_checkpoint

    folder = Path(args.checkpoint)
    # A folder may hold a tokenizer alone, which is no model to sample from.
    is_folder = folder.is_dir()
    model = load_checkpoint(folder) if is_folder else MaskGIT.from_pretrained(args.checkpoint)
    shape, transformer = model.tokenizer.config, model.transformer
    size = sum(os.path.getsize(p) for p in folder.iterdir() if p.is_file()) if is_folder else 0
    facts = {
        "checkpoint": str(args.checkpoint),
        "megabytes": round(size / 1e6, 1),
        "image_size": shape.image_size,
        "grid_size": shape.grid_size,
        "codebook_size": shape.codebook_size,
        "tokenizer_parameters": sum(p.numel() for p in model.tokenizer.parameters()),
        "transformer_parameters": sum(p.numel() for p in transformer.parameters())
        if transformer
        else 0,
        "classes": model.classes,
        "sampling": to_dict(model.sampling),
    }
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name.replace('_', ' ')}: {shown}")
