"""Checks of arguments; an error names the argument, what it got and what is allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise ValueError naming the argument, the value and the allowed words."""
    words = tuple(allowed)
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}; got {value!r}")


def check_range(
    name: str, value: Any, low: float, high: float = math.inf, *, whole: bool = False
) -> None:
    """Raise ValueError unless value is a number (a whole one if asked) in [low, high]."""
    kinds = numbers.Integral if whole else numbers.Real
    bounds = f"at least {low}" if math.isinf(high) else f"between {low} and {high}"
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if not is_number or value == math.inf or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} {bounds}; got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise ValueError unless value is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false; got {value!r}")
