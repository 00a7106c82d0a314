"""The convert command: published weights in, a checkpoint folder out."""

from __future__ import annotations

import argparse


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the convert command."""
    parser.add_argument("--tokenizer", required=True, help="published tokenizer file")
    parser.add_argument("--transformer", required=True, help="published transformer file")
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument("--num-heads", type=int, default=None, help="where it cannot be told")
    parser.add_argument("--num-classes", type=int, default=None, help="where it cannot be told")
    parser.add_argument("--tokenizer-config", default=None, help="yaml or json of the tokenizer")
    parser.add_argument("--classes", default=None, help="text file with one class name a line")


def run_convert(args: argparse.Namespace) -> None:
    """Run the command and print the folder that it wrote.

    Raises:
        ValueError: options that do not fit the files.
        CheckpointError: weights that are damaged or of no known kind.
    """
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
