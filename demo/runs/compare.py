"""The same class and seed decoded in several ways, side by side and in step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demo.serving.request import Request
from demo.serving.steps import new_grid
from demo.settings import RequestError, build_config, match_class, parse_seed

# What is compared: the words under the images, and the setting that makes the difference.
CHOICES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "Order": [
        ("surest first", {"order": "confidence"}),
        ("evenly spread", {"order": "halton"}),
        ("at random", {"order": "random"}),
        ("row by row", {"order": "raster"}),
    ],
    "Steps": [(f"{count} steps", {"num_steps": count}) for count in (4, 8, 16, 32)],
    "Schedule": [(word, {"schedule": word}) for word in ("cosine", "arccos", "linear", "square")],
    "Guidance": [(f"guidance {scale}", {"guidance_scale": scale}) for scale in (1, 2, 4, 8)],
}


def choices_for(guided: bool) -> list[str]:
    """What can be compared on a model with or without guidance."""
    return [name for name in CHOICES if guided or name != "Guidance"]


def parse_compare(
    model: Any, class_name: Any, seed: Any, what: Any, values: Mapping[str, Any]
) -> Request:
    """Check a request for a comparison.

    Args:
        model: a `MaskGIT`.
        class_name, seed: as typed.
        what: a key of `CHOICES`.
        values: the settings that all images share.

    Raises:
        RequestError: one sentence that says what to change.
    """
    allowed = choices_for(model.null_label is not None)
    if what not in allowed:
        raise RequestError(f"Choose what to compare: {', '.join(allowed)}.")
    if class_name in (None, "", []):
        raise RequestError("Choose a class first.")
    variants = CHOICES[what]
    count = len(variants)
    return Request(
        kind="compare",
        model=str(model.name),
        mask_token_id=int(model.mask_token_id),
        tokens_per_cell=int(model.tokens_per_cell),
        tokens=new_grid(model, count),
        labels=(match_class(class_name, list(model.classes)),) * count,
        seeds=(parse_seed(seed),) * count,
        configs=tuple(build_config({**values, **change}) for _, change in variants),
        captions=tuple(name for name, _ in variants),
    )
