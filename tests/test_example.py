"""What the page shows before the first click: made once, in pieces that let visitors through."""

from __future__ import annotations

import threading

import pytest

from browser_model import CLASSES, tiny_model
from demo.runs.example import TILE_SEED, FirstResult, first_result, in_turn
from demo.serving.local import LocalRunner
from demo.serving.models import ModelHolder
from waiting import wait_for


@pytest.fixture
def models() -> ModelHolder:
    return ModelHolder(tiny_model())


def test_pieces_are_small_and_made_once(models) -> None:
    pieces = []

    def turn(work):
        pieces.append(work)
        return work()

    first = first_result(models)
    assert first.run(turn).run["frames"] and first.codebook(turn) and len(pieces) == 2
    tiles = first.tiles(turn)["tiles"]
    assert [tile["name"] for tile in tiles] == CLASSES and len(pieces) == 2 + len(CLASSES)
    assert first.tiles(turn)["tiles"] is tiles and first.run(turn) is first.run()
    assert len(pieces) == 2 + len(CLASSES)
    assert FirstResult(models.current).tiles() == first.tiles()
    assert first._tile(CLASSES[-1], TILE_SEED + len(CLASSES) - 1) == tiles[-1]["src"]


def test_a_visitor_comes_between_two_pieces(models) -> None:
    runner, order = LocalRunner(models), []
    begun, released = threading.Event(), threading.Event()
    first, tile = first_result(models), FirstResult._tile

    def watched(name: str, seed: int) -> str:
        if not order:
            begun.set()
            assert released.wait(30)
        order.append(name)
        return tile(first, name, seed)

    first._tile = watched
    welcome = threading.Thread(target=first.tiles, args=(in_turn(runner),))
    welcome.start()
    assert begun.wait(30)
    visitor = threading.Thread(target=runner.call, args=("visit", lambda: order.append("visitor")))
    visitor.start()
    wait_for(lambda: runner.num_waiting == 1)
    released.set()
    visitor.join(30)
    welcome.join(30)
    assert order == [CLASSES[0], "visitor", *CLASSES[1:]]
