"""The train command: a folder of photos in, a model of them out, ready for the page."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from maskgit_core.cli.options import add_data_arguments, add_preset_arguments
from maskgit_core.cli.train_both import Training
from maskgit_core.cli.train_stage import together
from maskgit_core.training.choices import CPU_MINUTES, Choices, choose

if TYPE_CHECKING:
    pass


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the train command."""
    add_data_arguments(parser)
    parser.add_argument(
        "--minutes",
        type=float,
        default=None,
        help=f"training time in all, {CPU_MINUTES:g} on a CPU if unset; 0 takes the preset's steps",
    )
    parser.add_argument(
        "--init",
        default=None,
        metavar="CHECKPOINT",
        help="model to go on from: folder, known name, or none; if unset, the shipped one for few "
        "photos on a CPU",
    )
    parser.add_argument(
        "--keep-classes",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep the classes of --init that the data does not show; yes where --init is given",
    )
    parser.add_argument(
        "--tokenizer",
        default=None,
        metavar="CHECKPOINT",
        help="keep this tokenizer and train the transformer only",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=None,
        metavar="N",
        help="pixels a side, also of what is gone on from: tables of its grid are interpolated",
    )
    parser.add_argument(
        "--samples", type=int, default=60, help="samples for the evaluation; 0 evaluates nothing"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    add_preset_arguments(parser)


@together
def run_train(args: argparse.Namespace) -> None:
    """Run the command."""
    from maskgit_core.cli.data import data_folders
    from maskgit_core.data.checks import check_data
    from maskgit_core.data.fingerprints import hash_of_checkpoint
    from maskgit_core.distributed.group import first_alone, is_first, local_device
    from maskgit_core.training.budget import RunFile
    from maskgit_core.training.guards import remove_leftovers, run_lock
    from maskgit_core.training.log import data_share
    from maskgit_core.weights.hub import resolve_checkpoint

    started, out = time.monotonic(), Path(args.out)
    device = local_device(args.device)
    files, warnings = check_data(data_folders(args)[0])
    choices = first_alone(lambda: choose(args, len(files.files), device.type))
    begun_with = None
    if choices.tokenizer:
        begun_with = first_alone(lambda: resolve_checkpoint(choices.tokenizer))
    settings = {
        "preset": choices.preset.name,
        "set": [*args.set, *([f"image_size={size}"] if (size := args.image_size) else [])],
        "start": "init" if choices.init else "tokenizer" if choices.tokenizer else "none",
        "fingerprint of its checkpoint": hash_of_checkpoint(begun_with) if begun_with else "none",
        "keep_classes": choices.keep_classes,
        "minutes": choices.seconds / 60 if choices.seconds < math.inf else 0,
        "classes": files.classes,
        "photos": len(files.files),
    }
    run = RunFile.open(out, settings)
    training = Training(args, choices, run, out, device)
    notes = training.prepare(files.classes)
    out.mkdir(parents=True, exist_ok=True)
    lock = run_lock(out) if is_first() else nullcontext()
    # Which photos cannot be read is said in one sentence.
    quiet = _only_errors("maskgit_core.data.photos")
    with lock, quiet, contextlib.redirect_stdout(sys.stdout if is_first() else io.StringIO()):
        if is_first():
            remove_leftovers(out)
        for sentence in (*warnings, *_intention(choices, len(files.files), files.classes), *notes):
            print(sentence)
        try:
            training.run_all()
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on. What there is lies in {out}")
            raise
    if not is_first():
        return
    for name in run.stages:
        if (share := data_share(out / name)) is not None:
            print(f"{name}: making batches took {100 * share:.1f} % of the training time")
    print(f"finished after {(time.monotonic() - started) / 60:.0f} minutes. To see it:")
    print(f"    python app.py --checkpoint {out / 'checkpoint'}")


@contextlib.contextmanager
def _only_errors(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _intention(choices: Choices, num_images: int, classes: Sequence[str]) -> list[str]:
    text = f"{num_images} photos in {len(classes)} classes, preset {choices.preset.name}: "
    if choices.init:
        text += f"the transformer of {choices.init} learns them, its tokenizer stays as it is"
    elif choices.tokenizer:
        text += f"a new transformer is trained on the tokenizer of {choices.tokenizer}"
    else:
        text += "tokenizer and transformer are trained from nothing"
    limit = choices.seconds / 60
    until = "the preset's steps" if math.isinf(limit) else f"about {limit:g} minutes of training"
    return [f"{text}; {until}. Ctrl-C stops cleanly, the same command goes on."]
