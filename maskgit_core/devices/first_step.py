"""The first step of a decoding, remembered: it sees no token, so it depends on the class alone.

Every new image begins with a wholly masked grid. What the network answers there is the same for
all images of a class, whatever their seeds, and is computed once for as long as the weights stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskgit_core.decoding.networks import CellNetwork
from maskgit_core.devices.parts import InParts

MAX_BYTES = 2**25


class StartStore:
    """Vectors of wholly masked grids, by what the network was told of the class.

    Args:
        max_bytes: beyond it the oldest are dropped.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        # Replaced as a whole: decodings in other threads may read it meanwhile.
        self._kept: tuple[CellNetwork | None, dict[bytes, Tensor]] = (None, {})

    def start(self, network: Any, mask_token_id: int) -> Any:
        """Return a network for one decoding that remembers across decodings.

        Another network than the last time forgets what there is. A `LogitsFn` that is no
        `CellNetwork` is returned as it is.
        """
        if not isinstance(network, CellNetwork):
            return network
        if self._kept[0] is not network:
            self._kept = (network, {})
        return _Starting(network, mask_token_id, self)

    def vectors(self, network: CellNetwork, tokens: Tensor, condition: Tensor) -> Tensor:
        """Return float (R, N, D) of wholly masked tokens int64 (R, N), one condition a row."""
        owner, kept = self._kept
        kept = kept if owner is network else {}
        keys = [row.double().cpu().numpy().tobytes() for row in condition]
        new = {key: row for row, key in enumerate(keys) if key not in kept}
        found = {key: kept[key] for key in keys if key in kept}
        if new:
            rows = torch.tensor(list(new.values()), device=tokens.device)
            cells = torch.ones_like(tokens[rows], dtype=torch.bool)
            hidden = network.hidden_at(tokens[rows], condition[rows], cells)
            found |= zip(new, hidden.view(len(new), tokens.shape[1], -1).unbind(), strict=True)
            if owner is network:
                self._keep(network, {key: found[key].clone() for key in new})
        return torch.stack([found[key] for key in keys])

    def _keep(self, network: CellNetwork, vectors: dict[bytes, Tensor]) -> None:
        kept = {**self._kept[1], **vectors}
        size = sum(vector.nbytes for vector in kept.values())
        while size > self.max_bytes:
            size -= kept.pop(next(iter(kept))).nbytes
        self._kept = (network, kept)


class _Starting:
    """A `CellNetwork` whose first call is answered from a store where it can be."""

    def __init__(self, network: CellNetwork, mask_token_id: int, store: StartStore) -> None:
        self.network, self.mask_token_id, self.store = network, mask_token_id, store
        self._later = InParts(network)
        self.condition, self.logits_of = network.condition, network.logits_of
        self._first = True

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        first, self._first = self._first, False
        if not first or bool((tokens != self.mask_token_id).any()):
            return self._later.hidden_at(tokens, condition, cells)
        return self.store.vectors(self.network, tokens, condition)[cells]
