"""New images: from what was typed to a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from demo.serving.request import Request
from demo.serving.steps import new_grid
from demo.settings import (
    MAX_IMAGES,
    RequestError,
    build_config,
    match_class,
    parse_count,
    parse_seed,
    shown_values,
)
from maskgit_core.config import SamplingConfig
from maskgit_core.recipes import class_turns


def parse_generate(
    model: Any, classes: Sequence[Any] | Any, count: Any, seed: Any, values: Mapping[str, Any]
) -> Request:
    """Check a request for new images; with several classes the images take turns.

    Args:
        model: a `MaskGIT`.
        classes: names or numbers.
        count, seed: number of images and first seed, as typed; image i uses seed + i.
        values: sampling settings as shown.

    Raises:
        RequestError: one sentence that says what to change.
    """
    if classes is None or isinstance(classes, str | int):
        classes = [] if classes in (None, "") else [classes]
    if not classes:
        raise RequestError("Choose at least one class first.")
    number = parse_count(count)
    # A caller may repeat a class a hundred thousand times; only as many as images are looked at.
    indices = [match_class(name, list(model.classes)) for name in list(classes)[:MAX_IMAGES]]
    labels = tuple(indices[i % len(indices)] for i in range(number))
    first, config = parse_seed(seed), build_config(values)
    seeds = tuple(first + i for i in range(number))
    return Request(
        kind="generate",
        model=str(model.name),
        mask_token_id=int(model.mask_token_id),
        tokens_per_cell=int(model.tokens_per_cell),
        tokens=new_grid(model, number),
        labels=labels,
        seeds=seeds,
        configs=(config,),
        captions=tuple(
            f"{model.classes[label]}, seed {one}" for label, one in zip(labels, seeds, strict=True)
        ),
        recipe=_recipe(model, labels, first, config),
    )


def _recipe(
    model: Any, labels: tuple[int, ...], seed: int, config: SamplingConfig
) -> dict[str, Any]:
    """The settings that make the same images again, as plain data."""
    return {
        "task": "generate",
        "model": str(model.name),
        "classes": class_turns([model.classes[label] for label in labels]),
        "count": len(labels),
        "seed": seed,
        **shown_values(config),
        **precision_of(model),
    }


def precision_of(model: Any) -> dict[str, str]:
    """What a recipe says of the precision: nothing where it is the usual one."""
    precision = getattr(model, "precision", "float32")
    return {} if precision == "float32" else {"precision": precision}
