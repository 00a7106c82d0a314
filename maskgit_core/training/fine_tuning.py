"""Going on from a trained model with other classes or on another grid, and setting photos aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.class_names import match_classes
from maskgit_core.config import TransformerConfig
from maskgit_core.data.folders import shortened
from maskgit_core.data.photos import Photos
from maskgit_core.networks.registry import (
    TRANSFORMERS,
    build_transformer,
    kind_of,
    trained_words,
    trains,
)

IN_PLACE = 0.9  # of the codes; tokens of the others have lost their meaning
HELD_OUT_SHARE = 0.1
MOST_HELD_FROM = 20_000  # photos; more are not copied in memory to set some aside


def merged_classes(known: Sequence[str], wanted: Sequence[str], *, keep: bool) -> list[str]:
    """Return the classes of a model that goes on from another.

    Args:
        known: of the model that it goes on from.
        wanted: of the data; see `class_names.match_classes` on which are the same.
        keep: whether classes that the data does not show stay, in their old places.
    """
    if not keep:
        return list(wanted)
    places = zip(wanted, match_classes(wanted, known), strict=True)
    return [*known, *(name for name, place in places if place is None)]


def labels_in(classes: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the place of each wanted class; all are among the classes."""
    places = match_classes(wanted, classes)
    return [place for place in places if place is not None]


class Adapted(NamedTuple):
    """A network that goes on elsewhere.

    Attributes:
        model: a new network, or the one that was given where nothing had to change.
        notes: what was interpolated, kept, added and left out, one sentence each.
    """

    model: nn.Module
    notes: list[str]


@torch.no_grad()
def adapted_transformer(
    model: nn.Module,
    before: Sequence[str],
    after: Sequence[str],
    grid_size: int | None = None,
    seed: int = 0,
) -> Adapted:
    """Return the same network for other classes and another grid.

    A class that is known keeps its row; a new one starts at the mean of the known ones with noise
    of their spread, as far from each of them as they are from each other. (From the row of "no
    class" it hardly gets away: after 170 steps of 32 images, four new classes were a quarter as far
    apart as known ones, and their samples of one seed were much the same.)

    What is kept for each cell, the positions and, of `class_token`, the biases of the output, is
    interpolated as an image over the grid (as ViT does for photos of more pixels, Dosovitskiy et
    al. 2021, Sec. 3.2).

    Args:
        model: trained with the classes `before`.
        before, after: names, label by label; compared as `merged_classes` does.
        grid_size: tokens a side that the result is for; None keeps the grid.
        seed: of the noise.

    Raises:
        ValueError: a network of another kind, or a grid that its `merge` does not divide.
    """
    if not any(each.trains and type(model) is each.network for each in TRANSFORMERS.values()):
        raise ValueError(
            "init must hold a transformer of this project's own kinds "
            f"({trained_words(TRANSFORMERS)}); got a {type(model).__name__}"
        )
    config = model.config
    grid = config.grid_size if grid_size is None else grid_size
    if grid % config.merge:
        raise ValueError(
            f"init takes squares of {config.merge} x {config.merge} tokens as one, which must "
            f"divide the grid; got a grid of {grid} x {grid}"
        )
    if grid == config.grid_size and list(before) == list(after):
        return Adapted(model, [])
    state = _on_grid(model.state_dict(), config, grid)
    null = len(before)
    places = match_classes(after, before)
    rows = torch.tensor([null if place is None else place for place in places] + [null])
    new = rows[:-1] == null
    generator = torch.Generator().manual_seed(seed)
    for table in TRANSFORMERS[kind_of(model, TRANSFORMERS)].class_tables:
        first = table.first(config)
        others, classes = state[table.name].tensor_split([first], dim=table.axis)
        if table.learned:
            classes = _placed(classes, rows, new, generator)
        else:
            classes = classes.index_select(table.axis, rows)
        state[table.name] = torch.cat([others, classes], dim=table.axis)
    built = build_transformer(replace(config, num_classes=len(after), grid_size=grid))
    built.load_state_dict(state)
    notes = _grid_notes(config.grid_size, grid) + _class_notes(before, after)
    return Adapted(built.train(model.training), notes)


def _placed(table: Tensor, rows: Tensor, new: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rows of known classes, new rows among them, and the row of "no class"."""
    placed, known = table[rows].clone(), table[:-1]
    spread = known.std(0) if len(known) > 1 else table.std()
    noise = torch.randn(int(new.sum()), table.shape[1], generator=generator)
    placed[:-1][new] = known.mean(0) + spread * noise
    return placed


def _on_grid(state: dict[str, Tensor], config: TransformerConfig, grid: int) -> dict[str, Tensor]:
    """Return the weights with what is kept for each cell interpolated to another grid."""
    state = dict(state)
    if grid == config.grid_size:
        return state
    for name in ("position", *(("bias",) if config.kind == "class_token" else ())):
        # Behind the cells stands the class, which has no place in the grid.
        cells, rest = state[name].split([config.num_tokens, len(state[name]) - config.num_tokens])
        state[name] = torch.cat([interpolated_cells(cells, config.grid_size, grid), rest])
    return state


def interpolated_cells(table: Tensor, before: int, after: int) -> Tensor:
    """Return float32 (after ** 2, D), a table of one row a cell as it is on another grid.

    Bicubic, so that a smooth table stays smooth; a smaller grid takes means, not single cells.

    Args:
        table: float32 (before ** 2, D), row-major.
        before, after: cells a side.
    """
    image = table.T.reshape(1, -1, before, before)
    image = F.interpolate(
        image, size=(after, after), mode="bicubic", align_corners=False, antialias=after < before
    )
    return image.flatten(2)[0].T.contiguous()


def _grid_notes(before: int, after: int) -> list[str]:
    if before == after:
        return []
    grids = f"{before} x {before} to {after} x {after}"
    return [f"The table of positions was interpolated from {grids} tokens."]


def _class_notes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return what became of the classes, nothing where all are as they were."""
    if list(before) == list(after):
        return []
    places = match_classes(after, before)
    kept = [name for name, place in zip(after, places, strict=True) if place is not None]
    added = [name for name, place in zip(after, places, strict=True) if place is None]
    gone = [name for place, name in enumerate(before) if place not in places]
    notes = [f"Classes kept with their rows: {shortened(kept) if kept else 'none'}."]
    if added:
        notes.append(
            f"Classes added: {shortened(added)}; each starts at the mean of the known ones, with "
            "noise of their spread."
        )
    if gone:
        notes.append(f"Classes left out, the data does not show them: {shortened(gone)}.")
    return notes


def adapted_tokenizer(tokenizer: nn.Module, image_size: int) -> Adapted:
    """Return the same tokenizer for images of another size; its weights fit every size.

    Args:
        tokenizer: stays as it is.
        image_size: pixels a side.

    Raises:
        ValueError: a published tokenizer, or a size that its tokens do not divide.
    """
    before = tokenizer.config.image_size
    if before == image_size:
        return Adapted(tokenizer, [])
    if not trains(tokenizer):
        raise ValueError(
            f"image_size must be {before} as in the checkpoint, whose tokenizer is none of this "
            f"project's; got {image_size}"
        )
    stride = tokenizer.config.patch_stride
    if image_size < stride or image_size % stride:
        raise ValueError(
            f"image_size must be a multiple of {stride}, the side of a token of the checkpoint; "
            f"got {image_size}"
        )
    built = type(tokenizer)(replace(tokenizer.config, image_size=image_size))
    built.load_state_dict(tokenizer.state_dict())
    grid = built.config.grid_size
    note = (
        f"The tokenizer of {before} x {before} pixels reads {image_size} x {image_size} pixels, "
        f"{grid} x {grid} tokens; its weights fit every size."
    )
    return Adapted(built.train(tokenizer.training), [note])


def check_same_tokens(
    ours: nn.Module, theirs: nn.Module, argument: str, where: str, *, may_move: bool = False
) -> list[str]:
    """Check that tokens of two tokenizers mean the same; their decoders may differ.

    Args:
        ours: the tokenizer that is used.
        theirs: the one that a transformer was trained on.
        argument, where: name of the option that brought the other, and its source.
        may_move: accept codes that were trained on as long as nearly each is still nearest to
            what it was.

    Returns:
        A sentence where the codes have moved.

    Raises:
        ValueError: other codes, or another encoder with the same ones.
    """
    sizes = [each.config.codebook_size for each in (ours, theirs)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{argument} must have the codes of the tokenizer, {sizes[0]}; {where} has {sizes[1]}"
        )
    left, right = (_token_weights(each) for each in (ours, theirs))
    if {n: t.shape for n, t in left.items()} != {n: t.shape for n, t in right.items()}:
        raise ValueError(f"{argument} must have the tokenizer's encoder; {where} has another kind")
    other = {name for name, tensor in left.items() if not _near(tensor, right[name])}
    if not other:
        return []
    moved = "quantizer.codebook" in other
    if moved and may_move and _share_in_place(ours, theirs) >= IN_PLACE:
        return [f"The codes of {where} have moved a little since; its transformer adapts to them."]
    raise ValueError(
        f"{argument} must have learned the tokens of the tokenizer; {where} was trained with "
        f"{'other codes' if moved else 'another encoder'}"
    )


@torch.no_grad()
def _share_in_place(ours: nn.Module, theirs: nn.Module) -> float:
    """Return the share of codes that are nearest to the code of the same number."""
    left, right = (
        each.quantizer.normalized(each.quantizer.codebook).cpu() for each in (ours, theirs)
    )
    nearest = [torch.cdist(part, right).argmin(1) for part in left.split(1024)]
    return (torch.cat(nearest) == torch.arange(len(right))).float().mean().item()


def _token_weights(tokenizer: nn.Module) -> dict[str, Tensor]:
    """Return the weights that decide which tokens an image has."""
    decoding = ("decoder.", "from_code.")
    state = tokenizer.state_dict()
    return {name: t.detach().cpu() for name, t in state.items() if not name.startswith(decoding)}


def _near(left: Tensor, right: Tensor) -> bool:
    """Whether weights are equal but for being kept in float16 or bfloat16 in between."""
    return torch.allclose(left.float(), right.float(), rtol=1e-2, atol=1e-3)


def set_aside(photos: Photos, share: float = HELD_OUT_SHARE) -> tuple[Photos, Photos | None]:
    """Split photos into those to learn from and, from every class of ten or more, a few to check.

    Returns:
        (training photos, held-out photos or None where no class has enough, or where there are
        so many that a copy would not fit the memory).
    """
    if len(photos.labels) > MOST_HELD_FROM:
        return photos, None
    held = torch.zeros(len(photos.labels), dtype=torch.bool)
    for label in photos.labels.unique():
        places = (photos.labels == label).nonzero().flatten()
        held[places[len(places) - int(share * len(places)) :]] = True
    if not held.any():
        return photos, None
    parts = [
        Photos(photos.pixels[mask.numpy()], photos.labels[mask], photos.classes, photos.skipped)
        for mask in (~held, held)
    ]
    return parts[0], parts[1]
