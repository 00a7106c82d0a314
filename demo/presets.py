"""Named settings: what the page opens with, and what else suits a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demo.settings import BALANCED, MAX_STEPS, shown_values
from maskgit_core.config import SamplingConfig

CUSTOM = "Custom"
RECOMMENDED = "Recommended"
PRESETS: dict[str, dict[str, Any]] = {
    "Fast": {**BALANCED, "num_steps": 8},
    "Balanced": BALANCED,
    "Best": {**BALANCED, "num_steps": 24, "choice_temperature": 20.0},
}
DEFAULT_PRESET = "Balanced"


def presets_for(
    config: SamplingConfig,
    more: Mapping[str, SamplingConfig] | None = None,
    *,
    guided: bool = True,
) -> dict[str, dict[str, Any]]:
    """Presets that suit a model; the one that its page opens with is `usual_preset`.

    Args:
        config: the model's own settings. Where they are none of `PRESETS`, nor those of a model
            that was saved without any, they become the preset `Recommended`, beside one with half
            its steps.
        more: other settings of the model, by name; those with more steps than the page allows are
            left out.
        guided: whether guidance means anything to the model.
    """
    own = shown_values(config)
    presets = PRESETS
    if own not in PRESETS.values() and config != SamplingConfig():
        presets = {"Fast": {**own, "num_steps": (own["num_steps"] + 1) // 2}, RECOMMENDED: own}
    for name, preset in (more or {}).items():
        if preset.num_steps <= MAX_STEPS:
            presets = {**presets, name: shown_values(preset)}
    if guided:
        return presets
    off = {"guidance_scale": 1.0, "guidance_schedule": "constant"}
    return {name: {**values, **off} for name, values in presets.items()}


def usual_preset(presets: Mapping[str, Any]) -> str:
    """Name of the preset that a page opens with."""
    return RECOMMENDED if RECOMMENDED in presets else DEFAULT_PRESET


def model_presets(model: Any) -> dict[str, dict[str, Any]]:
    """The presets that suit a `MaskGIT`."""
    return presets_for(model.sampling, model.presets, guided=model.null_label is not None)


def usual_values(model: Any) -> dict[str, Any]:
    """The shown values that a model's page opens with."""
    presets = model_presets(model)
    return presets[usual_preset(presets)]


def preset_of(values: Mapping[str, Any], presets: Mapping[str, Any] | None = None) -> str:
    """Name of the preset that equals the shown values, or `Custom`."""
    for name, preset in (PRESETS if presets is None else presets).items():
        if all(values.get(key) == value for key, value in preset.items()):
            return name
    return CUSTOM
