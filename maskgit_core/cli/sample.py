"""The sample command: classes in, one sheet of images out."""

from __future__ import annotations

import argparse

from maskgit_core.cli.sampling import (
    add_checkpoint_argument,
    add_sampling_arguments,
    sampling_config,
    save_image,
)
from maskgit_core.config import MAX_SEED, check_range

SAMPLE_BATCH = 32


def add_sample_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sample command."""
    add_checkpoint_argument(parser)
    parser.add_argument(
        "--labels", nargs="+", default=None, metavar="CLASS", help="names or numbers; all if unset"
    )
    parser.add_argument("--count", type=int, default=1, help="images a class")
    parser.add_argument("--columns", type=int, default=None, help="images a row of the sheet")
    parser.add_argument("--out", default="samples.png", help="image to write; its ending decides")
    add_sampling_arguments(parser)


def run_sample(args: argparse.Namespace) -> None:
    """Run the command: a sheet of images, a bar on the error stream.

    Raises:
        ValueError: an option out of range, an unknown class, or no image format.
        CheckpointError: a model that cannot be loaded, or a file that cannot be written.
    """
    import torch
    from tqdm import tqdm

    from maskgit_core.data.contact_sheet import contact_sheet
    from maskgit_core.data.image_files import image_format
    from maskgit_core.pipeline import MAX_IMAGES, MaskGIT
    from maskgit_core.pixels import to_uint8
    from maskgit_core.recipes import generate_recipe

    image_format(args.out)
    check_range("count", args.count, 1, MAX_IMAGES, whole=True)
    if args.columns is not None:
        check_range("columns", args.columns, 1, MAX_IMAGES, whole=True)
    model = MaskGIT.from_pretrained(args.checkpoint, precision=args.precision)
    config = sampling_config(args, model.sampling)
    labels = [
        label for label in args.labels or range(len(model.classes)) for _ in range(args.count)
    ]
    check_range("number of images", len(labels), 1, MAX_IMAGES, whole=True)
    check_range("seed", args.seed, 0, MAX_SEED + 1 - len(labels), whole=True)
    names = [model.class_name(model.label_id(label)) for label in labels]
    starts = range(0, len(labels), SAMPLE_BATCH)
    images = []
    num_steps = min(config.num_steps, model.grid_size**2 * model.tokens_per_cell)
    with tqdm(total=num_steps * len(starts), unit="step") as bar:
        for start in starts:
            batch = labels[start : start + SAMPLE_BATCH]
            for state in model.generate_steps(batch, config, args.seed + start):
                tokens = state.tokens
                bar.update()
            images.append(model.decode(tokens.cpu()))
    columns = args.columns or (args.count if args.count > 1 else 4)
    recipe = generate_recipe(model.name, names, args.seed, config, model.precision)
    sheet = contact_sheet(to_uint8(torch.cat(images)), columns, gap=2)
    save_image(sheet, args.out, recipe)
