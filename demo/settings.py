"""What a visitor may set: presets, limits, one sentence each, and how text becomes a setting.

One table, `FIELDS`, gives the widgets, the signatures of the functions for programs, links, recipes
and the checks, so that they cannot disagree. One more sampling setting is one entry here. Numbers
that only some requests have (`COUNT`, `SEED` and those of edits) are entries of the same kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maskgit_core.config import SamplingConfig
from maskgit_core.inputs import resolve_label
from maskgit_core.orders import ORDERS
from maskgit_core.schedules import GUIDANCE_SCHEDULES, NOISE_SCHEDULES, SCHEDULES

MAX_IMAGES = 16
MAX_STEPS = 64
MAX_SEED = 2**31 - 1  # stays exact as a number in a browser, with room for seed + image index
NO_CLASS = "No class"


class RequestError(ValueError):
    """A request that cannot be run; its message is one sentence for the visitor."""


@dataclass(frozen=True)
class Field:
    """One setting as the page shows it.

    Args:
        name: name in `SamplingConfig` (of a sampling setting) and in links.
        label: what the page calls it.
        info: one sentence on what it does.
        low, high, step: bounds of a number; unused for a choice.
        choices: the allowed words; empty for a number.
        off: the shown number that means "switched off" (None in `SamplingConfig`).
        later: came after the first version of the functions for programs: there it stands at the
            end, as programs may name arguments by their place.
    """

    name: str
    label: str
    info: str
    low: float = 0.0
    high: float = 0.0
    step: float = 1.0
    choices: tuple[str, ...] = ()
    off: float | None = None
    later: bool = False

    @property
    def whole(self) -> bool:
        """Whether the number must be a whole one."""
        return not self.choices and float(self.step).is_integer() and float(self.low).is_integer()

    @property
    def type(self) -> type[str] | type[int] | type[float]:
        """Of the value."""
        return str if self.choices else int if self.whole else float


FIELDS = (
    Field(
        "num_steps",
        "Steps",
        "How many rounds the model takes. More rounds decide fewer cells at a time.",
        1,
        MAX_STEPS,
    ),
    Field(
        "order",
        "Order",
        "Which cells are decided first: the surest ones, an even spread, at random, or row by row.",
        choices=tuple(ORDERS),
    ),
    Field(
        "schedule",
        "Schedule",
        "How many cells each step decides. Cosine starts slowly and finishes fast.",
        choices=tuple(SCHEDULES),
    ),
    Field(
        "guidance_scale",
        "Guidance",
        "How hard the class pulls. 1 is off; higher is clearer and less varied.",
        0,
        10,
        0.1,
    ),
    Field(
        "guidance_schedule",
        "Guidance growth",
        "How the pull of the class grows over the steps.",
        choices=tuple(GUIDANCE_SCHEDULES),
    ),
    Field(
        "guidance_power",
        "Guidance steepness",
        "How late the pull of the class sets in. Only for the guidance growth Power cosine.",
        0,
        10,
        0.1,
        later=True,
    ),
    Field(
        "temperature",
        "Temperature",
        "How freely each cell is drawn. 0 always takes the likeliest code.",
        0,
        2,
        0.05,
    ),
    Field(
        "first_step_temperature",
        "First step's temperature",
        "How many times the temperature the first step has, where nothing is known yet. 1 is off.",
        0,
        4,
        0.05,
        later=True,
    ),
    Field(
        "last_step_temperature",
        "Last step's temperature",
        "How many times the temperature the last step has; it moves there step by step. 1 is off.",
        0,
        4,
        0.05,
        later=True,
    ),
    Field(
        "choice_temperature",
        "Choice temperature",
        "How much chance decides which cells count as sure. Only for the confidence order.",
        0,
        20,
        0.1,
    ),
    Field(
        "noise_schedule",
        "Choice noise",
        "How that chance fades: by the steps that remain, or from the whole at the first step.",
        choices=tuple(NOISE_SCHEDULES),
        later=True,
    ),
    Field(
        "top_k",
        "Top k",
        "Draw only from this many of the likeliest codes. 0 is off.",
        0,
        1024,
        1,
        off=0,
    ),
    Field(
        "top_p",
        "Top p",
        "Draw only from the likeliest codes that together hold this share. 1 is off.",
        0.05,
        1,
        0.01,
        off=1,
    ),
)
FIELD = {field.name: field for field in FIELDS}

COUNT = Field("count", "Images", "", 1, MAX_IMAGES)
SEED = Field("seed", "Seed", "", 0, MAX_SEED)
VARIATIONS = Field("count", "Variations", "", 1, 4)
AMOUNT = Field("amount", "Extend by", "", 10, 100, 5)
START_PERCENT = Field(
    "start_percent",
    "Start from the photo",
    "How many of the hidden cells start as they are in the photo. Above 0, what you painted over "
    "can show through.",
    0,
    90,
    5,
)

# Measured on the shipped checkpoint, see its model card.
BALANCED = {
    "num_steps": 12,
    "order": "confidence",
    "schedule": "cosine",
    "guidance_scale": 2.0,
    "guidance_schedule": "linear",
    "guidance_power": 3.0,
    "temperature": 1.0,
    "first_step_temperature": 1.0,
    "last_step_temperature": 1.0,
    "choice_temperature": 14.0,
    "noise_schedule": "remaining",
    "top_k": 0,
    "top_p": 1.0,
}


def parse_number(label: str, value: Any, low: float, high: float, *, whole: bool) -> float | int:
    """Read a number that came from a widget, a link or the API.

    Args:
        label: what the visitor calls it, for the message.
        value: a number or its text.
        low, high: allowed bounds, both included.
        whole: whether only whole numbers are allowed.

    Raises:
        RequestError: not a number, not whole, or out of bounds.
    """
    kind = "a whole number" if whole else "a number"
    sentence = f"{label} must be {kind} from {low:g} to {high:g}."
    if high > 999_999:
        sentence = f"{label} must be {kind} from {low:,.0f} to {high:,.0f}."
    if isinstance(value, bool) or value is None:
        raise RequestError(sentence)
    try:
        # An int goes through untouched: a float would round a long seed before the check.
        number = value if isinstance(value, int) else float(str(value).strip())
    except (ValueError, OverflowError):
        raise RequestError(f"{sentence} {str(value)[:30]!r} is not one.") from None
    if not low <= number <= high:  # nan and infinity are not either
        raise RequestError(f"{sentence} You asked for {str(value)[:30]}.")
    if whole and number != int(number):
        raise RequestError(f"{sentence} You asked for {str(value)[:30]}.")
    return int(number) if whole else float(number)


def parse_value(field: Field, value: Any) -> Any:
    """Read one setting as shown on the page; RequestError if it is not allowed."""
    if not field.choices:
        return parse_number(field.label, value, field.low, field.high, whole=field.whole)
    if value not in field.choices:
        allowed = ", ".join(field.choices)
        raise RequestError(f"{field.label} must be one of {allowed}; {str(value)[:30]!r} is not.")
    return value


def parse_seed(value: Any) -> int:
    """Read a seed, 0 to `MAX_SEED`; RequestError otherwise."""
    return int(parse_value(SEED, value))


def parse_count(value: Any) -> int:
    """Read the number of images, 1 to `MAX_IMAGES`; RequestError otherwise."""
    return int(parse_value(COUNT, value))


def build_config(values: Mapping[str, Any]) -> SamplingConfig:
    """Turn shown values into a `SamplingConfig`; what is missing keeps the balanced preset.

    Raises:
        RequestError: an unknown name or a value that is not allowed.
    """
    for name in values:
        if name not in FIELD:
            raise RequestError(f"{str(name)[:30]!r} is no setting; known are {', '.join(FIELD)}.")
    parsed = {
        name: parse_value(FIELD[name], value) for name, value in {**BALANCED, **values}.items()
    }
    for name, value in parsed.items():
        if FIELD[name].off is not None and value == FIELD[name].off:
            parsed[name] = None
    return SamplingConfig(**parsed)


def shown_values(config: SamplingConfig) -> dict[str, Any]:
    """The inverse of `build_config`: what the widgets show for a configuration."""
    values = {name: getattr(config, name) for name in FIELD}
    return {name: FIELD[name].off if value is None else value for name, value in values.items()}


def match_class(name: Any, classes: list[str]) -> int:
    """Index of a class given by its name (any case) or its number, also as text.

    Raises:
        RequestError: no such class; the sentence lists some that exist.
    """
    text = str(name).strip()
    whole = isinstance(name, int) and not isinstance(name, bool)
    with contextlib.suppress(ValueError):
        return resolve_label(name if whole else text, classes, None)
    some = ", ".join(classes[:12]) + (", and more" if len(classes) > 12 else "")
    raise RequestError(f"There is no class {text[:40]!r}. This model knows {some}.")
