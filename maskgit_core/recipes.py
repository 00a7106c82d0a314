"""Recipes: the settings that make the same images again, as plain data for a file.

They use the words of the page's recipes, so that the page can open one that a command wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskgit_core.config import SamplingConfig, to_dict

NO_CLASS = "none"


def class_turns(names: Sequence[str]) -> list[str]:
    """Return the shortest list whose names, taken in turns, give these.

    Three images of two classes in turns, rose, sea, rose, are of the classes rose and sea; those
    of rose, rose, sea must name all three.
    """
    for length in range(1, len(names)):
        if names[length:] == names[:-length]:
            return list(names[:length])
    return list(names)


def generate_recipe(
    model: str, names: Sequence[str], seed: int, config: SamplingConfig, precision: str = "float32"
) -> dict[str, Any]:
    """Return the recipe of new images.

    Args:
        model: its name.
        names: class of each image.
        seed: image i used seed + i.
        config: how they were decoded.
        precision: of the transformer's products.
    """
    return {
        "task": "generate",
        "model": model,
        "classes": class_turns(names),
        "count": len(names),
        "seed": seed,
        **_settings(config, precision),
    }


def edit_recipe(
    task: str,
    model: str,
    name: str,
    seed: int,
    config: SamplingConfig,
    precision: str = "float32",
    **more: Any,
) -> dict[str, Any]:
    """Return the recipe of an edit; the photo and the mask are not in it.

    Args:
        task: inpaint or outpaint.
        model, seed, config, precision: as for new images.
        name: class of the new content.
        more: what else decided it, such as the box.
    """
    return {
        "task": task,
        "model": model,
        "class": name,
        "count": 1,
        "seed": seed,
        **more,
        **_settings(config, precision),
    }


def _settings(config: SamplingConfig, precision: str) -> dict[str, Any]:
    """Return what was set; what is off is left out, and so is the usual precision."""
    values = {name: value for name, value in to_dict(config).items() if value is not None}
    return values if precision == "float32" else {**values, "precision": precision}
