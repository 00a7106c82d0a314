"""The inpaint command: a photo and a mask in, the photo with its marked part repainted out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.cli.edits import add_edit_arguments, edit_photos

if TYPE_CHECKING:
    from maskgit_core.editing.plan import EditPlan
    from maskgit_core.pipeline import MaskGIT


def add_inpaint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the inpaint command."""
    add_edit_arguments(parser, "inpainted")
    parser.add_argument(
        "--mask",
        required=True,
        metavar="FILE|DIR",
        help="image as large as the photo, white (or, on transparency, opaque) = repaint; or a "
        "folder with one of the same name for each photo",
    )
    parser.add_argument(
        "--box",
        nargs=4,
        type=int,
        default=None,
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="the part of the photo that the model sees, in pixels, a square if nothing is to be "
        "squeezed; a tight one around the painted part if unset",
    )


def run_inpaint(args: argparse.Namespace) -> None:
    """Run the command: repainted photos, a bar on the error stream.

    Raises:
        ValueError: a file that is no photo, a mask that does not fit, or an unknown class.
        CheckpointError: a model that cannot be loaded, or a file that cannot be written.
    """
    from maskgit_core.editing.masks import open_with_mask

    def plan(model: MaskGIT, photo: Path, mask: Path | None) -> tuple[EditPlan, dict[str, Any]]:
        assert mask is not None
        image, drawn = open_with_mask(photo, mask)
        found = model.plan_inpaint(image, drawn, args.box)
        return found, {"box": list(found.box)}

    edit_photos(args, "inpaint", plan, masks=Path(args.mask))
