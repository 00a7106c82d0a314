"""`convert`: published weights, or a checkpoint of ours, to a checkpoint folder of one's own."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHOICES = "give a name with --checkpoint, or two files with --tokenizer and --transformer"


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `convert`."""
    parser.add_argument(
        "name", nargs="?", default=None, help="the same as --checkpoint, for published names"
    )
    parser.add_argument(
        "--checkpoint",
        default=None,
        help="published model's name, owner/name on the Hugging Face Hub, or checkpoint folder",
    )
    parser.add_argument("--tokenizer", default=None, help="published tokenizer file")
    parser.add_argument("--transformer", default=None, help="published transformer file")
    parser.add_argument("--out", required=True, help="checkpoint folder to write")
    parser.add_argument("--num-heads", type=int, default=None, help="where it cannot be told")
    parser.add_argument("--num-classes", type=int, default=None, help="where it cannot be told")
    parser.add_argument("--tokenizer-config", default=None, help="yaml or json of the tokenizer")
    parser.add_argument("--classes", default=None, help="text file with one class name a line")
    parser.add_argument(
        "--half", action="store_true", help="write 16-bit weights: half the size on the disk"
    )
    parser.add_argument(
        "--keep-download",
        action="store_true",
        help="keep the published files that --checkpoint fetches; most of their bytes are an "
        "optimizer's state, and they are removed once they are converted",
    )
    parser.add_argument(
        "--push",
        default=None,
        metavar="OWNER/NAME",
        help="upload the written folder to this repository of the Hugging Face Hub, from which "
        "--checkpoint OWNER/NAME then loads it",
    )


def run_convert(args: argparse.Namespace) -> None:
    """Run `convert`.

    Raises:
        ValueError: neither a name nor two files, or both; or options that do not go together.
        CheckpointError: see `convert_checkpoint`, `convert_named` and `push_to_hub`.
    """
    from maskgit_core.hub_client import check_repo

    name, files = args.checkpoint or args.name, (args.tokenizer, args.transformer)
    if args.checkpoint and args.name:
        raise ValueError(f"name must be given once; got {args.name} and {args.checkpoint}")
    if (name is None) == (None in files) or (name is not None and any(files)):
        raise ValueError(f"{CHOICES}, and not both" if name else CHOICES)
    if args.push is not None:
        check_repo(args.push)
    if name is None:
        _convert_files(args)
    else:
        _convert_name(args, name)
    print(args.out)
    if args.push is not None:
        from maskgit_core.weights.hub import push_to_hub

        print(push_to_hub(args.out, args.push, message="Upload converted MaskGIT weights"))


def _dtype(args: argparse.Namespace) -> torch.dtype:
    import torch

    return torch.float16 if args.half else torch.float32


def _convert_files(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from maskgit_core.weights.convert import convert_checkpoint

    if args.keep_download:
        raise ValueError("keep-download is for --checkpoint: files of your own always stay")
    with tqdm(total=3, unit="part", delay=1) as bar:
        convert_checkpoint(
            args.tokenizer,
            args.transformer,
            args.out,
            num_heads=args.num_heads,
            num_classes=args.num_classes,
            tokenizer_config=args.tokenizer_config,
            classes_file=args.classes,
            dtype=_dtype(args),
            advance=bar.update,
        )


def _convert_name(args: argparse.Namespace, name: str) -> None:
    from maskgit_core.weights.download import download_folder
    from maskgit_core.weights.hub import KNOWN_WEIGHTS, convert_named

    for option in ("num_heads", "num_classes", "tokenizer_config", "classes"):
        if getattr(args, option) is not None:
            raise ValueError(f"{option.replace('_', '-')} is for --tokenizer and --transformer")
    convert_named(name, args.out, dtype=_dtype(args), keep_download=args.keep_download)
    if args.keep_download and name in KNOWN_WEIGHTS:
        folder = download_folder(KNOWN_WEIGHTS[name])
        if folder.is_dir():
            print(f"the published files are in {folder}", file=sys.stderr)
