"""A large batch on a CPU in parts, side by side: each core has rows of its own.

Threads that share one product wait for each other at its end, hundreds of times a pass.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from maskgit_core.decoding.networks import CellNetwork
from maskgit_core.devices.threads import side_by_side

# More rows at once are hardly faster on a CPU; few sizes of blocks keep the heap small.
PART_ROWS = 4


class InParts:
    """A `CellNetwork` that asks another one for some rows at a time, the same up to rounding.

    Args:
        network: any.
    """

    def __init__(self, network: CellNetwork) -> None:
        self.network = network
        self.condition, self.logits_of = network.condition, network.logits_of

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """As the network's."""
        count = 1
        if tokens.device.type == "cpu":
            count = _num_parts(len(tokens), torch.get_num_threads())
        parts = [part.tensor_split(count) for part in (tokens, condition, cells)]
        asked = [partial(self.network.hidden_at, *rows) for rows in zip(*parts, strict=True)]
        return torch.cat(side_by_side(asked))


def _num_parts(rows: int, threads: int) -> int:
    """Into how many parts a batch is split: one, or as many for each thread; none is empty."""
    if rows <= max(PART_ROWS, threads):
        return 1
    return threads * -(-rows // (threads * PART_ROWS))
