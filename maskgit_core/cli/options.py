"""The options of the training commands: one for every setting, with the words beside its field.

A setting comes from the preset or the defaults below, then from --set, then from its own option.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from maskgit_core.config import TokenizerConfig, TransformerConfig, to_dict
from maskgit_core.training.presets import (
    FROM_DATA,
    load_preset,
    names_setting,
    preset_names,
    with_settings,
)
from maskgit_core.training.settings import OLD_NAMES, TrainConfig

StageConfig = TypeVar("StageConfig", bound=TrainConfig)

_DEFAULTS = load_preset("scenes-flowers-xs")
# Without the perceptual loss: its network is not among what the project needs.
TOKENIZER_DEFAULTS = replace(_DEFAULTS.tokenizer_training, perceptual_weight=0.0)
TRANSFORMER_DEFAULTS = _DEFAULTS.transformer_training


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --data, --val and --out."""
    parser.add_argument(
        "--data",
        required=True,
        help="directory with one folder per class, or with train/ and val/ of that form; "
        "hub:OWNER/NAME is such a dataset on the Hugging Face Hub",
    )
    parser.add_argument("--val", default=None, help="held-out photos, one folder per class")
    parser.add_argument("--out", required=True, help="folder of the run; resumed where it exists")


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    parser.add_argument("--cache", default=None, help="where packed photos are kept; default: out")
    parser.add_argument("--max-minutes", type=float, default=None, help="stop cleanly after")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    add_preset_arguments(parser)


def add_preset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --preset and --set."""
    parser.add_argument(
        "--preset",
        default=None,
        metavar="NAME",
        help=f"settings to begin with: {', '.join(preset_names())}; other options win",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, for example width=512; may be given several times",
    )


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of train-tokenizer."""
    _common_arguments(parser)
    parser.add_argument(
        "--init",
        default=None,
        help="checkpoint whose tokenizer to start from, for photos of any size; with "
        "--continuous-steps 0 also from its codes, which then move little, so that its transformer "
        "adapts quickly",
    )
    parser.add_argument(
        "--sampled",
        default=None,
        help="checkpoint whose transformer samples tokens for --sampled-images; --init if unset",
    )
    _add_settings(parser, "training", TOKENIZER_DEFAULTS)
    _add_settings(parser, "network", TokenizerConfig())


def transformer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of train-transformer."""
    _common_arguments(parser)
    parser.add_argument(
        "--tokenizer",
        default=None,
        help="checkpoint folder or known name whose tokenizer is used; needed unless the preset "
        "names one",
    )
    parser.add_argument(
        "--crops", type=int, default=None, help="crops a photo that are encoded, 1-5 (1 if unset)"
    )
    parser.add_argument(
        "--init",
        default=None,
        help="checkpoint whose transformer to start from, trained on the same tokenizer; another "
        "grid is interpolated, classes are matched by name and new ones added",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=None,
        metavar="N",
        help="pixels a side, where it is not the tokenizer's own: its weights fit every multiple "
        "of a token's side",
    )
    _add_settings(parser, "training", TRANSFORMER_DEFAULTS)
    _add_settings(parser, "network", TransformerConfig(), FROM_DATA)


def stage_settings(
    args: argparse.Namespace, stage: str, training: StageConfig, network: Any
) -> tuple[StageConfig, Any]:
    """Return training and network settings with --set, then with the options that were given."""
    names = (f"{stage}_training", stage)
    changed = with_settings(dict(zip(names, (training, network), strict=True)), args.set)
    of_training, of_network = (_with_options(args, changed[name]) for name in names)
    return of_training, of_network


def asked_for(args: argparse.Namespace, name: str) -> bool:
    """Whether a setting was given by its own option or by --set."""
    return getattr(args, name, None) is not None or names_setting(args.set, name)


def shape_notes(args: argparse.Namespace, wanted: Any, got: Any) -> list[str]:
    """Return what was asked of a network's shape and cannot be had, as --init brings its own."""
    values = to_dict(got)
    return [
        f"The network is that of --init: {name} is {values[name]}, not {value}."
        for name, value in to_dict(wanted).items()
        if asked_for(args, name) and name in values and values[name] != value
    ]


def _with_options(args: argparse.Namespace, default: Any) -> Any:
    values = to_dict(default)
    for name in values:
        if hasattr(args, name):
            values[name] = getattr(args, name)
    return type(default)(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _add_settings(
    parser: argparse.ArgumentParser, title: str, default: Any, leave_out: Sequence[str] = ()
) -> None:
    """Add one option for every field of a configuration; only what is given is in the result."""
    group = parser.add_argument_group(title)
    old_names = {new: old for old, new in OLD_NAMES.items()}
    for field in fields(default):
        if field.name in leave_out:
            continue
        value = getattr(default, field.name)
        if isinstance(value, bool):
            kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        elif isinstance(value, tuple):
            kind = {"nargs": "+", "type": type(value[0]), "metavar": "N"}
        else:
            kind = {"type": type(value), "metavar": "N" if isinstance(value, int) else "X"}
        kind |= {"default": argparse.SUPPRESS, "dest": field.name}
        text = f"{field.metadata['help']} (default: {_shown(value)})".replace("%", "%%")
        group.add_argument(_option(field.name), help=text, **kind)
        if field.name in old_names:
            group.add_argument(_option(old_names[field.name]), help=argparse.SUPPRESS, **kind)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
