import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskgit_core.orders import halton_order, random_order, raster_order

TABLES = json.loads((Path(__file__).parent / "fixtures/samplers/tables.json").read_text())


@pytest.mark.parametrize("side", TABLES["halton_order"])
def test_halton_order_equals_the_published_one(side):
    assert halton_order(int(side)).tolist() == TABLES["halton_order"][side]


@given(st.integers(1, 70))
def test_halton_order_holds_every_cell_of_a_square_once(side):
    order = halton_order(side)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(side**2))


@given(st.integers(1, 20), st.integers(1, 20))
def test_every_order_holds_every_cell_of_a_rectangle_once(rows, columns):
    grid = (rows, columns)
    for order in (
        halton_order(grid),
        raster_order(grid),
        random_order(grid, torch.Generator().manual_seed(0)),
    ):
        assert sorted(order.tolist()) == list(range(rows * columns))


def test_halton_order_is_the_callers_own():
    halton_order(8).zero_()
    assert halton_order(8)[0] == TABLES["halton_order"]["8"][0]


def test_random_order_depends_on_the_generator_only():
    orders = [random_order(8, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("grid_size", [0, -1, 2.5, True, (4, 0), (1, 2, 3)])
def test_a_grid_that_is_none_is_refused(grid_size):
    with pytest.raises(ValueError, match="^grid_size must"):
        halton_order(grid_size)
