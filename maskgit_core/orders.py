"""Orders in which the cells of a token grid are revealed; pure functions.

`halton_order` follows Halton-MaskGIT (Besnier et al. 2025, arXiv:2503.17076): a low-discrepancy
sequence spreads the cells of every step over the whole image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from maskgit_core.config import check_range

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
    numerator = np.zeros_like(index)
    denominator = 1
    while index.any():
        index, digit = np.divmod(index, base)
        numerator = numerator * base + digit
        denominator *= base
    return numerator * side // denominator


def raster_order(grid_size: GridSize) -> Tensor:
    """Return the cells row by row: int64 (N,), flat row-major positions."""
    rows, columns = grid_shape(grid_size)
    return torch.arange(rows * columns)


def random_order(grid_size: GridSize, generator: torch.Generator) -> Tensor:
    """Return the cells in an order drawn from the generator (on the CPU): int64 (N,)."""
    rows, columns = grid_shape(grid_size)
    return torch.randperm(rows * columns, generator=generator)
