"""The inpaint command: a photo and a mask in, the photo with its marked part repainted out."""

from __future__ import annotations

import argparse

from maskgit_core.cli.sampling import (
    add_checkpoint_argument,
    add_sampling_arguments,
    parse_label,
    sampling_config,
    save_png,
)


def add_inpaint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the inpaint command."""
    add_checkpoint_argument(parser)
    parser.add_argument("--image", required=True, help="photo")
    parser.add_argument(
        "--mask", required=True, help="image, white (or, on transparency, opaque) = repaint"
    )
    parser.add_argument("--label", default="none", help="class of the new content, or none")
    parser.add_argument("--out", default="inpainted.png", help="PNG to write")
    add_sampling_arguments(parser)


def run_inpaint(args: argparse.Namespace) -> None:
    """Run the command: the repainted photo, a bar on the error stream.

    Raises:
        ValueError: a file that is no photo, a mask that does not fit, or an unknown class.
        CheckpointError: a model that cannot be loaded, or a file that cannot be written.
    """
    from tqdm import tqdm

    from maskgit_core.data.images import load_image
    from maskgit_core.editing.masks import drawn_mask
    from maskgit_core.pipeline import MaskGIT

    model = MaskGIT.from_pretrained(args.checkpoint, precision=args.precision)
    config = sampling_config(args, model.sampling)
    image = load_image(args.image, keep_alpha=True)
    mask = drawn_mask(load_image(args.mask, keep_alpha=True))
    plan = model.plan_inpaint(image, mask)
    label = parse_label(args.label, model.classes)
    steps = model.edit_steps(plan, label, config, args.seed)
    total = min(config.num_steps, int(plan.token_mask.sum()))
    for state in tqdm(steps, total=total, unit="step"):
        tokens = state.tokens
    save_png(model.finish(plan, tokens), args.out)
