"""Going on from a trained transformer with other classes, and setting photos aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from maskgit_core.data.photos import Photos
from maskgit_core.networks.registry import (
    TRANSFORMERS,
    build_transformer,
    kind_of,
    trained_words,
    trains,
)

NOISE = 0.1  # of the deviation of the table that a new class is put into
HELD_OUT_SHARE = 0.1
MOST_HELD_FROM = 20_000  # photos; more are not copied in memory to set some aside


def merged_classes(known: Sequence[str], wanted: Sequence[str], *, keep: bool) -> list[str]:
    """Return the classes of a model that goes on from another.

    Args:
        known: of the model that it goes on from.
        wanted: of the data; one that differs in case only is the same class.
        keep: whether classes that the data does not show stay, in their old places.
    """
    if not keep:
        return list(wanted)
    folded = {name.casefold() for name in known}
    return [*known, *(name for name in wanted if name.casefold() not in folded)]


def labels_in(classes: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the place of each wanted class, whatever its case."""
    places = {name.casefold(): place for place, name in enumerate(classes)}
    return [places[name.casefold()] for name in wanted]


@torch.no_grad()
def with_classes(
    model: nn.Module, before: Sequence[str], after: Sequence[str], seed: int = 0
) -> nn.Module:
    """Return the same network with a table for other classes.

    A class that is known keeps its row; a new one starts at the row of "no class", the mean of
    everything that was seen, with a little noise to tell new classes apart.

    Args:
        model: trained with the classes `before`.
        before, after: names, label by label.
        seed: of the noise.

    Raises:
        ValueError: a network of another kind.
    """
    if not trains(model):
        raise ValueError(
            "init must hold a transformer of this project's own kinds "
            f"({trained_words(TRANSFORMERS)}); got a {type(model).__name__}"
        )
    known = {name.casefold(): label for label, name in enumerate(before)}
    null = len(before)
    rows = torch.tensor([known.get(name.casefold(), null) for name in after] + [null])
    new = rows[:-1] == null
    built = build_transformer(replace(model.config, num_classes=len(after)))
    state, generator = dict(model.state_dict()), torch.Generator().manual_seed(seed)
    for table in TRANSFORMERS[kind_of(model, TRANSFORMERS)].class_tables:
        first = table.first(model.config)
        others, classes = state[table.name].tensor_split([first], dim=table.axis)
        if table.learned:
            classes = _placed(classes, rows, new, generator)
        else:
            classes = classes.index_select(table.axis, rows)
        state[table.name] = torch.cat([others, classes], dim=table.axis)
    built.load_state_dict(state)
    return built


def _placed(table: Tensor, rows: Tensor, new: Tensor, generator: torch.Generator) -> Tensor:
    placed = table[rows].clone()
    noise = torch.randn(int(new.sum()), table.shape[1], generator=generator)
    placed[:-1][new] += NOISE * table.std() * noise
    return placed


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
