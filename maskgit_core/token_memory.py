"""What the first layers make of single tokens, remembered while one decoding goes on.

Stem, first norm and first q, k, v look at one token at a time, and a step changes few tokens:
about a twentieth of a pass need not be computed again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskgit_core.layers import places_of
from maskgit_core.packing import PackedBlock
from maskgit_core.sampling import CellNetwork
from maskgit_core.transformer import MaskedTransformer

# More rows at once are no faster on a CPU; fewer sizes of blocks keep the heap small.
PART_ROWS = 8


def remembering(network: CellNetwork) -> CellNetwork:
    """Return a network for one decoding, the same up to rounding; itself where nothing is gained.

    Args:
        network: any; a packed `MaskedTransformer` of two blocks or more gains.
    """
    if not isinstance(network, MaskedTransformer) or len(network.blocks) < 2:
        return network
    return TokenMemory(network) if isinstance(network.blocks[0], PackedBlock) else network


class TokenMemory:
    """A `CellNetwork` that computes the first layers where tokens are others than last time."""

    def __init__(self, network: MaskedTransformer) -> None:
        self.network = network
        self.condition, self.logits_of = network.condition, network.logits_of
        self._parts: list[_Part] = []

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """As `MaskedTransformer.hidden_at`."""
        parts = [part.split(PART_ROWS) for part in (tokens, condition, cells)]
        missing = len(parts[0]) - len(self._parts)
        self._parts += [_Part(self.network) for _ in range(missing)]
        asked = zip(self._parts, *parts, strict=False)
        return torch.cat([part.hidden_at(*rows) for part, *rows in asked])


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
        at, valid = places_of(cells)
        return self.network.head(last(x, at)[valid])

    def _update(self, sequence: Tensor) -> None:
        before, self._sequence = self._sequence, sequence
        if before is None or before.shape != sequence.shape:
            places = torch.arange(sequence.shape[1], device=sequence.device)
            self._x, self._qkv = self._of_tokens(sequence, places)
            return
        new = (sequence != before).nonzero(as_tuple=True)
        x, qkv = self._of_tokens(sequence[new], new[1])
        # Not in place: that is forbidden where a decoding began in inference mode and goes on
        # outside of it.
        self._x, self._qkv = self._x.index_put(new, x), self._qkv.index_put(new, qkv)

    def _of_tokens(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        x = self.network.embedded(ids, places)
        return x, self.network.blocks[0].projected(x)
