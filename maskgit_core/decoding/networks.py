"""What the loop asks of a network: logits of a whole grid, or of the cells that a step needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

LogitsFn = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class CellNetwork(Protocol):
    """A network that computes only what a step needs; the loop uses this where it is offered.

    Its logits are those that the network gives when it is called as a `LogitsFn`, up to rounding.
    """

    def condition(self, labels: Tensor) -> Tensor:
        """Return what depends on labels int64 (R,) alone, one row each."""

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """Return float (M, D) at the M cells of bool (R, N), ordered as `cells.nonzero()`."""

    def logits_of(self, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return logits float (M, K or more), an affine map of the vectors at positions (M,)."""


class WholeGrid:
    """Any callable as a CellNetwork: the vectors are its logits."""

    def __init__(self, logits_fn: LogitsFn, num_codes: int) -> None:
        self.logits_fn, self.num_codes = logits_fn, num_codes

    def condition(self, labels: Tensor) -> Tensor:
        """Return the labels."""
        return labels

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """Return the logits of the cells; ValueError where they have another shape."""
        logits = self.logits_fn(tokens, condition)
        if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            raise ValueError(
                f"logits_fn must return (rows, cells, codes) for tokens {tuple(tokens.shape)}; "
                f"got {tuple(logits.shape)}"
            )
        if logits.shape[2] < self.num_codes:
            raise ValueError(
                f"logits_fn must return at least codebook_size {self.num_codes} columns; "
                f"got {logits.shape[2]}"
            )
        return logits[..., : self.num_codes][cells]

    def logits_of(self, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return the vectors, which are logits already."""
        return hidden
