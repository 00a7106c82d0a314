"""Cells that hold several tokens: between the id of a cell and the tokens that the loop decides.

A cell's id has G groups of bits, the least significant first, and each is a token of its own with
its own mask. Decoding runs over all of them; who watches it sees cells. A cell counts as revealed
once all of its tokens are known, and as partly known from the first of them on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskgit_core.decoding.draw import NUM_ALTERNATIVES
from maskgit_core.decoding.loop import StepState


@dataclass(frozen=True)
class TokenGroups:
    """How the ids of cells are divided.

    Args:
        count: G, tokens of a cell.
        size: C, values of a token, a power of two; C itself is a masked token.
    """

    count: int
    size: int

    @property
    def num_ids(self) -> int:
        """K = C ** G, ids of a cell; K itself is a masked cell."""
        return self.size**self.count

    def split(self, ids: Tensor) -> Tensor:
        """Return tokens int64 (..., G), in [0, C], of ids int64 (...), in [0, K]."""
        bits = self.size.bit_length() - 1
        places = torch.arange(self.count, device=ids.device) * bits
        tokens = ids.unsqueeze(-1) >> places & (self.size - 1)
        return tokens.masked_fill((ids == self.num_ids).unsqueeze(-1), self.size)

    def join(self, tokens: Tensor) -> Tensor:
        """Return ids int64 (...) of tokens int64 (..., G); K where a token is masked."""
        bits = self.size.bit_length() - 1
        places = torch.arange(self.count, device=tokens.device) * bits
        ids = (tokens << places).sum(-1)
        return ids.masked_fill((tokens == self.size).any(-1), self.num_ids)

    def cells(self, state: StepState) -> StepState:
        """Return a state of tokens (B, h, w, G) as one of cells (B, h, w).

        The confidence of a cell is the sum of its tokens' log-probabilities, each when it was
        drawn; its alternatives are the likeliest pairs, triples and so on of their alternatives.
        """
        known = state.tokens != self.size
        whole = known.all(-1)
        ids, probs = self._alternatives(state)
        drawn = whole & (probs > 0).any(-1)
        return replace(
            state,
            tokens=self.join(state.tokens),
            newly_revealed=whole & state.newly_revealed.any(-1),
            confidence=state.confidence.sum(-1),  # nan where a token is masked
            alternative_ids=ids.masked_fill(~drawn.unsqueeze(-1), self.num_ids),
            alternative_probs=probs.masked_fill(~drawn.unsqueeze(-1), 0.0),
            partly_known=known.any(-1) & ~whole,
        )

    def _alternatives(self, state: StepState) -> tuple[Tensor, Tensor]:
        bits, groups = self.size.bit_length() - 1, state.alternative_ids.unbind(-2)
        ids, probs = groups[0], state.alternative_probs[..., 0, :]
        for group in range(1, self.count):
            more = groups[group] << (group * bits)
            ids = (ids.unsqueeze(-1) + more.unsqueeze(-2)).flatten(-2)
            chance = state.alternative_probs[..., group, :].unsqueeze(-2)
            probs = (probs.unsqueeze(-1) * chance).flatten(-2)
            probs, best = probs.topk(min(NUM_ALTERNATIVES, probs.shape[-1]), dim=-1)
            ids = ids.gather(-1, best)
        return ids, probs
