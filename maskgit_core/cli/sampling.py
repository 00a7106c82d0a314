"""What the commands that draw images have in common: model, settings, classes, files."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

from maskgit_core.config import PRECISIONS, SamplingConfig, to_dict
from maskgit_core.weights.shipped import SHIPPED_NAME

if TYPE_CHECKING:
    from PIL import Image

    from maskgit_core.data.image_files import Recipe


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint."""
    parser.add_argument(
        "--checkpoint", default=SHIPPED_NAME, help="checkpoint folder or known name"
    )


def add_sampling_arguments(
    parser: argparse.ArgumentParser, *, seed_help: str = "image i uses seed + i"
) -> None:
    """Add one option for each setting of `SamplingConfig`, --seed and --precision."""
    for each in fields(SamplingConfig):
        rule = each.metadata
        words = {"choices": rule["choices"]} if rule["choices"] else {"type": rule["kind"]}
        option = f"--{each.name.replace('_', '-')}"
        parser.add_argument(option, default=argparse.SUPPRESS, help=rule["help"], **words)
    parser.add_argument("--seed", type=int, default=0, help=seed_help)
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


def save_image(image: Image.Image, path: str, recipe: Recipe) -> None:
    """Write an image with its recipe, whole or not at all, and print its path.

    Raises:
        ValueError: the ending of the path names no format.
        CheckpointError: it cannot be written.
    """
    from maskgit_core.data.image_files import image_format, write_image
    from maskgit_core.files import write_atomically

    kind = image_format(path)
    write_atomically(path, lambda temporary: write_image(image, temporary, kind, recipe))
    print(path)
