"""How `benchmark` measures: runs in turn, a median and a spread, and the machine's own peak.

Runs that are compared are made alternately, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

PEAK_SIDE = 1536


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity.

    Attributes:
        median, low, high: middle, smallest and largest value.
        repeats: how many there are.
    """

    median: float
    low: float
    high: float
    repeats: int

    def per(self, amount: float) -> Spread:
        """Return amount / value: of seconds, how many of something a second."""
        return Spread(amount / self.median, amount / self.high, amount / self.low, self.repeats)

    def times(self, factor: float) -> Spread:
        """Return the values in another unit."""
        values = (self.median * factor, self.low * factor, self.high * factor)
        return Spread(*values, self.repeats)


def spread(values: Sequence[float]) -> Spread:
    """Return the median (the lower middle of an even number) and the extremes.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("values must hold at least one measurement; got none")
    ordered = sorted(values)
    return Spread(ordered[(len(ordered) - 1) // 2], ordered[0], ordered[-1], len(ordered))


@dataclass(frozen=True)
class Row:
    """One line of the result.

    Attributes:
        part: what was measured, a name of `benchmark.PARTS`.
        case: the circumstances.
        unit: of the values.
        value: ours; None where it could not be measured, `note` says why.
        plain: the same of the plain reference loop; None where there is none.
        ratio: how many times better ours is than the plain loop's, by the medians.
        note: what a reader has to know.
    """

    part: str
    case: str
    unit: str
    value: Spread | None
    plain: Spread | None = None
    ratio: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return asdict(self)


def seconds(function: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def in_turn(
    functions: Sequence[Callable[[], Any]], repeats: int, limit: float
) -> list[list[float]]:
    """Time several functions, one call each in turn.

    A first round warms up and is not counted, unless it alone takes longer than the limit.

    Args:
        functions: what to call, without arguments.
        repeats: rounds that are counted.
        limit: in seconds; no further round starts after it, but one is always counted.

    Returns:
        For each function the seconds of its counted calls.
    """
    started = time.perf_counter()
    first = [seconds(function) for function in functions]
    if time.perf_counter() - started > limit:
        return [[value] for value in first]
    rounds: list[list[float]] = []
    while len(rounds) < repeats and (not rounds or time.perf_counter() - started < limit):
        rounds.append([seconds(function) for function in functions])
    return [list(values) for values in zip(*rounds, strict=True)]


def matrix_product() -> Callable[[], Tensor]:
    """Return a call that multiplies two float32 matrices of `PEAK_SIDE` a side."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(PEAK_SIDE, PEAK_SIDE, generator=generator) for _ in range(2))
    return lambda: left @ right


def gflop_of_matrix_product() -> float:
    """Return the 10^9 floating-point operations of one call of `matrix_product`."""
    return 2 * PEAK_SIDE**3 / 1e9


def gflop_of_pass(network: nn.Module, *inputs: Tensor) -> float:
    """Return the 10^9 floating-point operations of the products in one call of a network.

    Linear layers, convolutions and attention are counted, a multiplication and an addition each
    as one operation; norms, activations and the like are not.
    """

    def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
        return sdpa_flop(query, key, value)

    # The attention of the CPU is missing in the counter's own table.
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        network(*inputs)
    return counter.get_total_flops() / 1e9
