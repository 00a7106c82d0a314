"""Settings that come from outside, as a link or as a recipe file. Nothing in them is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from demo.presets import DEFAULT_PRESET, PRESETS
from demo.settings import (
    FIELD,
    FIELDS,
    MAX_IMAGES,
    RequestError,
    match_class,
    parse_count,
    parse_seed,
    parse_value,
)

MAX_RECIPE_BYTES = 100_000
_KNOWN_KEYS = {"task", "model", "classes", "count", "seed", "precision", "image", *FIELD}


def _nearest(name: str, text: str) -> Any:
    """The allowed value nearest to a text, or the usual one where it makes no sense."""
    field = FIELD[name]
    usual = PRESETS[DEFAULT_PRESET][name]
    if field.choices:
        return text if text in field.choices else usual
    try:
        number = min(max(float(text), field.low), field.high)
        return parse_value(field, int(number) if field.whole else number)
    except (ValueError, OverflowError):  # RequestError is one
        return usual


def settings_from_link(
    classes: list[str],
    parameters: Iterable[tuple[str, str]],
    usual: Mapping[str, Any] = PRESETS[DEFAULT_PRESET],
) -> dict[str, Any] | None:
    """Read the settings in a link: clamped, unknown ones left out, never an error.

    Args:
        classes: names that the model knows.
        parameters: key and text of every part of the query, in order.
        usual: the sampling settings of which a link says nothing.

    Returns:
        classes, count, seed and every sampling setting; a key is missing where the link says
        nothing about it. None where the link holds no settings at all.
    """
    found: dict[str, Any] = {}
    names: list[str] = []
    for key, text in list(parameters)[:200]:
        if key == "class" and len(names) < MAX_IMAGES:
            try:
                name = classes[match_class(text, classes)]
            except RequestError:
                continue
            names.append(name)
        elif key == "images":
            found["count"] = _clamped_whole(text, 1, MAX_IMAGES)
        elif key == "seed":
            try:
                found["seed"] = parse_seed(text)
            except RequestError:
                continue
        elif key in FIELD:
            found[key] = _nearest(key, text)
    if names:
        found["classes"] = names
    if not found:
        return None
    # A link leaves out what is as usual.
    return {**usual, **{k: v for k, v in found.items() if v is not None}}


def _clamped_whole(text: str, low: int, high: int) -> int | None:
    try:
        return int(min(max(float(text), low), high))
    except (ValueError, OverflowError):
        return None


def model_in_link(parameters: Iterable[tuple[str, str]]) -> str:
    """Name of the model that a link was made with; empty where it says nothing."""
    names = [text for key, text in list(parameters)[:200] if key == "model"]
    return names[0][:100] if names else ""


def model_in_recipe(text: str | bytes) -> str:
    """Name of the model that a recipe was made with; empty where it names none.

    Raises:
        RequestError: as `settings_from_recipe`.
    """
    name = _read_recipe(text).get("model", "")
    return name[:100] if isinstance(name, str) else ""


def settings_from_recipe(classes: list[str], text: str | bytes) -> dict[str, Any]:
    """Read a recipe file.

    Args:
        classes: names that the model knows.
        text: the JSON.

    Returns:
        classes, count, seed, every sampling setting, and `model`, the name it was made with.

    Raises:
        RequestError: no recipe, or something in it that this page cannot do; one sentence.
    """
    recipe = _read_recipe(text)
    names = [classes[match_class(name, classes)] for name in recipe["classes"][:MAX_IMAGES]]
    return {
        "classes": names,
        "count": parse_count(recipe.get("count", 1)),
        "seed": parse_seed(recipe.get("seed", 0)),
        "model": str(recipe.get("model", ""))[:100],
        **{
            field.name: parse_value(
                field, recipe.get(field.name, PRESETS[DEFAULT_PRESET][field.name])
            )
            for field in FIELDS
        },
    }


def _read_recipe(text: str | bytes) -> dict[str, Any]:
    if len(text) > MAX_RECIPE_BYTES:
        raise RequestError("This file is too large for a recipe.")
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError("This file is no recipe: it is not JSON.") from None
    if not isinstance(recipe, dict) or not isinstance(recipe.get("classes"), list):
        raise RequestError("This file is no recipe of images: it names no classes.")
    for key in recipe:
        if key not in _KNOWN_KEYS:
            raise RequestError(
                f"This recipe has a setting {str(key)[:30]!r} that is not known here."
            )
    return recipe
