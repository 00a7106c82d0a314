"""What the train command does where its options leave it open: preset, start and time."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

from maskgit_core.config import TokenizerConfig, check_range
from maskgit_core.training.presets import (
    SECTIONS,
    Preset,
    load_preset,
    names_setting,
    with_settings,
)
from maskgit_core.weights.shipped import shipped_folder

SHIPPED = shipped_folder()
FEW_PHOTOS = 5000  # up to here a small model gains more from what another one has learned
CPU_MINUTES = 15.0
FINE_TUNING_RATE = 0.25  # of the preset's rates, which are meant for random weights
LARGE_DATA = 200_000  # photos, above which a GPU gets an ImageNet preset


@dataclass(frozen=True)
class Choices:
    """What a training does, decided from options, device and data.

    Attributes:
        preset: with --set applied.
        init: model to go on from, or None.
        tokenizer: source of a tokenizer that is kept, or "" where one is trained.
        keep_classes: whether classes of `init` stay that the data does not show.
        seconds: for both stages.
        image_size: pixels a side where a tokenizer is kept and the options or a preset name its
            size; None keeps its own.
    """

    preset: Preset
    init: Path | None
    tokenizer: str
    keep_classes: bool
    seconds: float
    image_size: int | None = None


def pick_preset(device: str, num_images: int) -> str:
    """Return the name of the preset for a device, `cpu` or `cuda`, and a number of photos."""
    if device == "cpu":
        return "scenes-flowers-xs"
    return "scenes-flowers-s" if num_images < LARGE_DATA else "imagenet-256-small"


def choose(args: argparse.Namespace, num_images: int, device: str) -> Choices:
    """Decide what is trained from what.

    Raises:
        ValueError: options that exclude each other, an unknown preset or setting.
    """
    from maskgit_core.devices.precision import bfloat16_pays
    from maskgit_core.weights.hub import resolve_checkpoint

    if args.minutes is not None:
        check_range("minutes", args.minutes, 0.0)
    check_range("samples", args.samples, 0, whole=True)
    if args.init and args.tokenizer:
        raise ValueError("give init or tokenizer, not both: init brings its own tokenizer")
    preset = load_preset(args.preset or pick_preset(device, num_images))
    init: Path | None = None
    if args.init and args.init != "none":
        init = resolve_checkpoint(args.init)
    elif not (args.init or args.tokenizer or args.preset) and device == "cpu":
        init = SHIPPED if num_images <= FEW_PHOTOS and SHIPPED.is_dir() else None
    if init is not None:
        training = preset.transformer_training
        rates = ("learning_rate", "matrix_learning_rate")
        slower = {name: FINE_TUNING_RATE * getattr(training, name) for name in rates}
        preset = replace(preset, transformer_training=replace(training, **slower))
    if device == "cpu" and bfloat16_pays("cpu"):
        sections = ("tokenizer_training", "transformer_training")
        faster = {name: replace(getattr(preset, name), precision="bfloat16") for name in sections}
        preset = replace(preset, **faster)
    before = {name: getattr(preset, name) for name in SECTIONS}
    source = str(init or args.tokenizer or preset.published_tokenizer)
    settings = list(args.set)
    if args.image_size is not None and not source:
        settings.append(f"tokenizer.image_size={args.image_size}")
    after = with_settings(before, settings)
    image_size = _image_size(args, preset, after["tokenizer"]) if source else None
    kept = ["tokenizer", "tokenizer_training"] if source else []
    for section in [*kept, *(["transformer"] if init else [])]:
        wanted = after[section]
        if section == "tokenizer":  # the only setting that the same weights can be used with
            wanted = replace(wanted, image_size=before[section].image_size)
        if wanted != before[section]:
            raise ValueError(
                f"set changes {section}, but that network is kept as it is in the checkpoint "
                f"{source}; use --init none to train from nothing"
            )
    minutes = args.minutes if args.minutes is not None else CPU_MINUTES if device == "cpu" else 0
    keep = args.keep_classes if args.keep_classes is not None else bool(args.init)
    return Choices(
        preset=replace(preset, **after),
        init=init,
        tokenizer=source,
        keep_classes=keep and init is not None,
        seconds=60 * minutes or math.inf,
        image_size=image_size,
    )


def _image_size(args: argparse.Namespace, preset: Preset, tokenizer: TokenizerConfig) -> int | None:
    """Return the size that the options or, with --init, a chosen preset ask of a tokenizer."""
    if args.image_size is not None:
        return args.image_size
    chosen = args.preset and args.init and not preset.published_tokenizer
    asked = chosen or names_setting(args.set, "image_size")
    return tokenizer.image_size if asked else None
