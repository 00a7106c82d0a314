"""Orders in which the cells of a token grid are revealed; pure functions and their table.

`halton_order` follows Halton-MaskGIT (Besnier et al. 2025, arXiv:2503.17076): a low-discrepancy
sequence spreads the cells of every step over the whole image.

One more order is one entry in `ORDERS`: settings, commands and page take their words from there.
The module needs torch only when an order is made, so that the words are there at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from maskgit_core.checks import check_range

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

GridSize = int | tuple[int, int]


def grid_shape(grid_size: GridSize) -> tuple[int, int]:
    """Return (rows, columns) of a grid given as its side or as (rows, columns).

    Raises:
        ValueError: not one or two whole numbers of at least 1.
    """
    shape = grid_size if isinstance(grid_size, tuple) else (grid_size, grid_size)
    if len(shape) != 2:
        raise ValueError(f"grid_size must be a side or (rows, columns); got {grid_size!r}")
    for side in shape:
        check_range("grid_size", side, 1, whole=True)
    return shape


def halton_order(grid_size: GridSize) -> Tensor:
    """Return the cells in the order in which the Halton sequence first visits them.

    Args:
        grid_size: tokens a side, or (rows, columns).

    Returns:
        int64 (N,): flat row-major positions, each once.

    Raises:
        ValueError: grid_size below 1 or not whole.

    Reference:
        Halton-MaskGIT (Besnier et al. 2025): base 2 gives the row, base 3 the column, from the
        first point (1/2, 1/3) on. Differs: points are drawn until every cell was visited, where
        the published code draws 10,000, too few for a side of 64.
    """
    return _halton_cells(*grid_shape(grid_size)).clone()


@lru_cache(maxsize=32)
def _halton_cells(rows: int, columns: int) -> Tensor:
    import numpy as np
    import torch

    num_cells = rows * columns
    num_points = 4 * num_cells + 16
    while True:
        index = np.arange(1, num_points + 1)
        cells = _scaled_inverse(index, 2, rows) * columns + _scaled_inverse(index, 3, columns)
        unique, first_visit = np.unique(cells, return_index=True)
        if len(unique) == num_cells:
            return torch.from_numpy(unique[np.argsort(first_visit)])
        num_points *= 2


def _scaled_inverse(index: np.ndarray, base: int, side: int) -> np.ndarray:
    """Return floor(side * radical inverse of index), in whole numbers, so nothing is rounded."""
    import numpy as np

    numerator = np.zeros_like(index)
    denominator = 1
    while index.any():
        index, digit = np.divmod(index, base)
        numerator = numerator * base + digit
        denominator *= base
    return numerator * side // denominator


def raster_order(grid_size: GridSize) -> Tensor:
    """Return the cells row by row: int64 (N,), flat row-major positions."""
    import torch

    rows, columns = grid_shape(grid_size)
    return torch.arange(rows * columns)


def random_order(grid_size: GridSize, generator: torch.Generator) -> Tensor:
    """Return the cells in an order drawn from the generator (on the CPU): int64 (N,)."""
    import torch

    rows, columns = grid_shape(grid_size)
    return torch.randperm(rows * columns, generator=generator)


@dataclass(frozen=True)
class Order:
    """A way to choose which cells are revealed first.

    Attributes:
        info: one sentence on it.
        cells: (grid size, generator on the CPU) to int64 (N,), the flat row-major positions in
            reveal order, each once; None where the surest tokens of each step come first.
    """

    info: str
    cells: Callable[[GridSize, torch.Generator], Tensor] | None = None


ORDERS: dict[str, Order] = {
    "confidence": Order("the surest cells of a step first"),
    "halton": Order(
        "an even spread over the image", lambda grid_size, generator: halton_order(grid_size)
    ),
    "random": Order("at random", random_order),
    "raster": Order("row by row", lambda grid_size, generator: raster_order(grid_size)),
}
