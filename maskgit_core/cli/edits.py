"""What the commands that edit photos have in common: one photo or a folder of them."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.cli.sampling import (
    add_checkpoint_argument,
    add_sampling_arguments,
    sampling_config,
    save_image,
)
from maskgit_core.config import MAX_SEED, check_range

if TYPE_CHECKING:
    from maskgit_core.editing.plan import EditPlan
    from maskgit_core.pipeline import MaskGIT

NAMES_SHOWN = 8

# Plans the edit of a photo, with its mask where there is one; and what its recipe is to say.
Planner = Callable[["MaskGIT", Path, Path | None], tuple["EditPlan", dict[str, Any]]]


@dataclass(frozen=True)
class Edit:
    """One photo to edit.

    Args:
        photo: file to read.
        mask: file to read; None where the edit needs none.
        out: file to write.
    """

    photo: Path
    mask: Path | None
    out: Path


def add_edit_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Add the options of every command that edits photos; `out` is what it writes by default."""
    add_checkpoint_argument(parser)
    parser.add_argument("--image", required=True, metavar="FILE|DIR", help="photo, or many")
    parser.add_argument(
        "--label", default="none", help="class of the new content, name or number; or none"
    )
    parser.add_argument(
        "--out",
        default=None,
        metavar="FILE|DIR",
        help="image to write, its ending decides the format; of a folder of photos, the folder for "
        f"as many PNG files ({out}.png, or {out}, if unset)",
    )
    parser.set_defaults(usual_out=out)
    # All photos of a folder have the one seed, so that each is as it would be alone.
    add_sampling_arguments(parser, seed_help="of every photo")


def edit_photos(
    args: argparse.Namespace, task: str, plan: Planner, *, masks: Path | None = None
) -> None:
    """Edit the photo, or all photos of the folder, that --image names.

    Args:
        args: of the command.
        task: what the recipe calls it.
        plan: plans one edit.
        masks: a mask, or a folder of them.

    Raises:
        ValueError: files that do not fit each other or cannot be read; of a folder, after all
            others are done.
        CheckpointError: a model that cannot be loaded, or a file that cannot be written.
    """
    from tqdm import tqdm

    from maskgit_core.pipeline import MaskGIT
    from maskgit_core.recipes import edit_recipe

    check_range("seed", args.seed, 0, MAX_SEED, whole=True)
    edits = list_edits(Path(args.image), masks, args.out, args.usual_out)
    many = Path(args.image).is_dir()
    model = MaskGIT.from_pretrained(args.checkpoint, precision=args.precision)
    config = sampling_config(args, model.sampling)
    name = model.class_name(model.label_id(args.label))

    def run(edit: Edit) -> None:
        planned, facts = plan(model, edit.photo, edit.mask)
        total = min(config.num_steps, int(planned.token_mask.sum()) * model.tokens_per_cell)
        steps = model.edit_steps(planned, args.label, config, args.seed)
        for state in tqdm(steps, total=total, unit="step", disable=many):
            tokens = state.tokens
        recipe = edit_recipe(task, model.name, name, args.seed, config, model.precision, **facts)
        save_image(model.finish(planned, tokens), str(edit.out), recipe)

    if not many:
        run(edits[0])
        return
    edits[0].out.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    for edit in tqdm(edits, unit="photo"):
        try:
            run(edit)
        except ValueError as error:
            tqdm.write(f"{edit.photo.name}: {error}", file=sys.stderr)
            failed.append(edit.photo.name)
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(edits)} photos could not be edited: {_listed(failed)}"
        )


def list_edits(image: Path, masks: Path | None, out: str | None, usual_out: str) -> list[Edit]:
    """Return what is to be edited, with names that fit each other, before anything is read.

    Args:
        image: a photo, or a folder of photos.
        masks: a mask for all, a folder with one for each, or None.
        out: as given: a file for a photo, a folder for a folder.
        usual_out: its name where it is not given, without an ending.

    Raises:
        ValueError: an ending that is no image format, no photo, a photo without a mask, or an
            output folder that holds what is read.
    """
    from maskgit_core.data.image_files import FORMAT_OF_SUFFIX, image_format

    if not image.is_dir():
        if masks is not None and masks.is_dir():
            raise ValueError(f"mask must be a file where image is one; {masks} is a folder")
        target = out or f"{usual_out}.png"
        image_format(target)
        return [Edit(image, masks, Path(target))]
    folder = Path(out or usual_out)
    if folder.suffix.lower() in FORMAT_OF_SUFFIX or folder.is_file():
        raise ValueError(f"out must be a folder where image is one; got {str(folder)!r}")
    for taken in (image, masks):
        if taken is not None and folder.resolve() == taken.resolve():
            raise ValueError(f"out must be another folder than {taken}, whose files would be lost")
    photos = _photos_in(image)
    if not photos:
        raise ValueError(f"image must be a photo or a folder that holds some; {image} holds none")
    found = [_mask_of(photo, masks) for photo in photos]
    without = [photo.name for photo, mask in zip(photos, found, strict=True) if mask is None]
    if masks is not None and without:
        raise ValueError(
            f"mask must hold a file of the same name for each photo; {masks} holds none for "
            f"{_listed(without)}"
        )
    stems = Counter(photo.stem.casefold() for photo in photos)
    names = [photo.name if stems[photo.stem.casefold()] > 1 else photo.stem for photo in photos]
    return [
        Edit(photo, mask, folder / f"{name}.png")
        for photo, mask, name in zip(photos, found, names, strict=True)
    ]


def _photos_in(folder: Path) -> list[Path]:
    """Return the photos that lie in a folder, hidden ones left out."""
    from maskgit_core.data.kinds import PHOTO_SUFFIXES

    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(p for p in found if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file())


def _mask_of(photo: Path, masks: Path | None) -> Path | None:
    """Return the mask of a photo: the one for all, or that of the same name, then of the stem."""
    if masks is None or not masks.is_dir():
        return masks
    if (masks / photo.name).is_file():
        return masks / photo.name
    same = [mask for mask in _photos_in(masks) if mask.stem == photo.stem]
    if len(same) > 1:
        raise ValueError(f"mask must hold one file for {photo.name}; got {_listed(same)}")
    return same[0] if same else None


def _listed(names: Sequence[str | Path]) -> str:
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(Path(name).name for name in names[:NAMES_SHOWN])
    return shown + (f" and {more} more" if more > 0 else "")
