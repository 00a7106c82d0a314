"""What the first layers make of single tokens, remembered while one decoding goes on.

Stem, first norm and first q, k, v look at one token at a time, and a step changes few tokens:
about a twentieth of a pass need not be computed again. Large batches are computed in parts, side
by side.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from maskgit_core.decoding.loop import CellNetwork
from maskgit_core.devices.prepack import PackedBlock
from maskgit_core.devices.threads import side_by_side
from maskgit_core.networks.layers import places_of
from maskgit_core.networks.transformer import MaskedTransformer

# More rows at once are hardly faster on a CPU; few sizes of blocks keep the heap small.
PART_ROWS = 4
# Numbers of cells are filled up to a multiple of this: oneDNN makes a program for each size of a
# product, which takes it longer than the product of a few more cells.
CELL_STEP = 16


def remembering(network: CellNetwork) -> CellNetwork:
    """Return a network for one decoding, the same up to rounding; itself where nothing is gained.

    Args:
        network: any; a packed `MaskedTransformer` of two blocks or more gains.
    """
    blocks: Any = getattr(network, "blocks", ())
    if (
        not hasattr(network, "embedded")
        or len(blocks) < 2
        or not isinstance(blocks[0], PackedBlock)
    ):
        return network
    return TokenMemory(cast(MaskedTransformer, network))


class TokenMemory:
    """A `CellNetwork` that computes the first layers where tokens are others than last time."""

    def __init__(self, network: MaskedTransformer) -> None:
        self.network = network
        self.condition, self.logits_of = network.condition, network.logits_of
        self._parts: list[_Part] = []

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """As `MaskedTransformer.hidden_at`."""
        count = _num_parts(len(tokens), torch.get_num_threads())
        parts = [part.tensor_split(count) for part in (tokens, condition, cells)]
        self._parts += [_Part(self.network) for _ in range(count - len(self._parts))]
        asked = zip(self._parts, *parts, strict=False)
        return torch.cat(side_by_side([partial(part.hidden_at, *rows) for part, *rows in asked]))


def _num_parts(rows: int, threads: int) -> int:
    """Into how many parts a batch is split: one, or as many for each thread; none is empty."""
    if rows <= max(PART_ROWS, threads):
        return 1
    return threads * -(-rows // (threads * PART_ROWS))


class _Part:
    """The memory of some rows of a batch."""

    def __init__(self, network: MaskedTransformer) -> None:
        self.network = network
        self._sequence: Tensor | None = None

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        first, *middle, last = self.network.blocks
        self._update(self.network.sequence(tokens, condition))
        x = first(self._x, qkv=self._qkv)
        for block in middle:
            x = block(x)
        at, valid = places_of(cells, CELL_STEP)
        return self.network.head(last(x, at))[valid]

    def _update(self, sequence: Tensor) -> None:
        before, self._sequence = self._sequence, sequence
        if before is None or before.shape != sequence.shape:
            places = torch.arange(sequence.shape[1], device=sequence.device)
            self._x, self._qkv = self._of_tokens(sequence, places)
            return
        new = _filled_up((sequence != before).nonzero(as_tuple=True))
        x, qkv = self._of_tokens(sequence[new], new[1])
        # Not in place: that is forbidden where a decoding began in inference mode and goes on
        # outside of it.
        self._x, self._qkv = self._x.index_put(new, x), self._qkv.index_put(new, qkv)

    def _of_tokens(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        x = self.network.embedded(ids, places)
        return x, self.network.blocks[0].projected(x)


def _filled_up(index: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Repeat the last of some places, each int64 (M,), until M is a multiple of CELL_STEP."""
    count = len(index[0])
    places = torch.arange(-(-count // CELL_STEP) * CELL_STEP, device=index[0].device)
    return tuple(part[places.clamp(max=count - 1)] for part in index)
