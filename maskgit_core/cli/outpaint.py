"""The outpaint command: a photo in, the photo carried on beyond its edges out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.cli.edits import add_edit_arguments, edit_photos

if TYPE_CHECKING:
    from maskgit_core.editing.plan import EditPlan
    from maskgit_core.pipeline import MaskGIT

SIDES = ("left", "right", "up", "down")


def add_outpaint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the outpaint command."""
    add_edit_arguments(parser, "outpainted")
    for side in SIDES:
        parser.add_argument(
            f"--{side}",
            type=float,
            default=0.0,
            metavar="SHARE",
            help="how far, as a share of the photo's "
            f"{'width' if side in ('left', 'right') else 'height'}, from 0 to 1",
        )


def run_outpaint(args: argparse.Namespace) -> None:
    """Run the command: larger photos, a bar on the error stream.

    Raises:
        ValueError: a file that is no photo, no side, one out of range, or an unknown class.
        CheckpointError: a model that cannot be loaded, or a file that cannot be written.
    """
    from maskgit_core.data.images import load_image

    sides = {side: getattr(args, side) for side in SIDES}

    def plan(model: MaskGIT, photo: Path, mask: Path | None) -> tuple[EditPlan, dict[str, Any]]:
        return model.plan_outpaint(load_image(photo, keep_alpha=True), **sides), sides

    edit_photos(args, "outpaint", plan)
