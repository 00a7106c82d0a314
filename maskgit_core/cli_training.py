"""The two training commands: a folder of photos in, a checkpoint folder out."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.config import (
    SamplingConfig,
    TokenizerConfig,
    TrainConfig,
    TransformerConfig,
    check_range,
    to_dict,
)

if TYPE_CHECKING:
    from maskgit_core.data import Photos
    from maskgit_core.training import Stage

TOKENIZER_DEFAULTS = TrainConfig(
    max_steps=2000,
    batch_size=16,
    learning_rate=2e-3,
    matrix_learning_rate=0.02,
    warmup_steps=30,
    ema_decay=0.998,
    l2_weight=2.0,
    continuous_steps=60,
    sample_every=200,
    save_every=50,
)
TRANSFORMER_DEFAULTS = TrainConfig(
    max_steps=2500,
    batch_size=32,
    learning_rate=2e-3,
    matrix_learning_rate=0.02,
    warmup_steps=50,
    ema_decay=0.998,
    sample_every=250,
    save_every=100,
)
# Settings of one stage that the other has no use for.
TRANSFORMER_ONLY = ("label_smoothing", "class_drop", "token_drop")
TOKENIZER_ONLY = (
    "l1_weight",
    "l2_weight",
    "perceptual_weight",
    "commit_weight",
    "adversarial_weight",
    "adversarial_start",
    "freeze_codes",
    "continuous_steps",
    "revive_every",
)
FROM_DATA = ("codebook_size", "num_classes", "grid_size")


def _add_settings(
    parser: argparse.ArgumentParser, title: str, default: Any, leave_out: Sequence[str] = ()
) -> None:
    """Add one option for every field of a configuration, with its default."""
    group = parser.add_argument_group(title)
    for field in fields(default):
        if field.name in leave_out:
            continue
        value = getattr(default, field.name)
        option = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            group.add_argument(option, action=argparse.BooleanOptionalAction, default=value)
        elif isinstance(value, tuple):
            group.add_argument(option, nargs="+", type=type(value[0]), default=value)
        else:
            group.add_argument(option, type=type(value), default=value, help=" ")


def _read_settings(args: argparse.Namespace, default: Any) -> Any:
    values = to_dict(default)
    for name in values:
        if hasattr(args, name):
            values[name] = getattr(args, name)
    return type(default)(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        help="directory with one folder per class, or with train/ and val/ of that form",
    )
    parser.add_argument("--val", default=None, help="held-out photos, one folder per class")
    parser.add_argument("--out", required=True, help="folder of the run; resumed where it exists")
    parser.add_argument("--cache", default=None, help="where packed photos are kept; default: out")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="stop cleanly after")


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of train-tokenizer."""
    _common_arguments(parser)
    parser.add_argument("--init", default=None, help="checkpoint whose tokenizer to start from")
    _add_settings(parser, "training", TOKENIZER_DEFAULTS, TRANSFORMER_ONLY)
    _add_settings(parser, "network", TokenizerConfig())


def transformer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of train-transformer."""
    _common_arguments(parser)
    parser.add_argument("--tokenizer", required=True, help="checkpoint folder with the tokenizer")
    parser.add_argument("--crops", type=int, default=1, help="crops a photo that are encoded, 1-5")
    parser.add_argument("--init", default=None, help="checkpoint whose transformer to start from")
    _add_settings(parser, "training", TRANSFORMER_DEFAULTS, TOKENIZER_ONLY)
    _add_settings(parser, "network", TransformerConfig(), FROM_DATA)


def _folders(args: argparse.Namespace) -> tuple[Path, Path | None]:
    data = Path(args.data)
    if (data / "train").is_dir():
        held_out = data / "val"
        return data / "train", Path(
            args.val
        ) if args.val else held_out if held_out.is_dir() else None
    return data, Path(args.val) if args.val else None


def _load_photos(args: argparse.Namespace, image_size: int) -> tuple[Photos, Photos | None]:
    from tqdm import tqdm

    from maskgit_core.data import pack_photos, packed_size

    def progress(files: Sequence[str]) -> Sequence[str]:
        return tqdm(files, desc="reading photos", unit="photo")

    train_dir, val_dir = _folders(args)
    cache = Path(args.cache or args.out)
    size = packed_size(image_size)
    photos = pack_photos(train_dir, size, cache_dir=cache, progress=progress)
    held_out = None
    if val_dir is not None:
        held_out = pack_photos(val_dir, size, cache_dir=cache, progress=progress)
        if held_out.classes != photos.classes:
            raise ValueError(
                f"val must have the classes of the training data, {', '.join(photos.classes)}; "
                f"got {', '.join(held_out.classes)}"
            )
    for name in photos.skipped:
        print(f"skipped unreadable file {name}", file=sys.stderr)
    return photos, held_out


def _run_stage(stage: Stage, config: TrainConfig, args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from maskgit_core.training import train

    bar = tqdm(total=config.max_steps, unit="step", dynamic_ncols=True)

    def report(step: int, measures: dict[str, float]) -> None:
        if bar.n == 0 and step > 1:
            bar.initial = step - 1
        bar.update(step - bar.n)
        if measures:
            shown = ("loss", "psnr", "accuracy", "images_per_second")
            bar.set_postfix({k: f"{measures[k]:.3g}" for k in shown if k in measures})

    out = Path(args.out)
    with bar:
        step = train(stage, config, out, report=report, max_seconds=60 * args.max_minutes)
    word = "finished" if step == config.max_steps else "stopped; the same command goes on"
    print(f"{word} at step {step}; weights in {out / 'checkpoint'}")


def train_tokenizer(args: argparse.Namespace) -> None:
    """Run train-tokenizer."""
    import torch

    from maskgit_core.checkpoint import load_checkpoint
    from maskgit_core.tokenizer import VQTokenizer
    from maskgit_core.tokenizer_stage import TokenizerStage

    config = _read_settings(args, TOKENIZER_DEFAULTS)
    network = _read_settings(args, TokenizerConfig())
    torch.manual_seed(config.seed)
    if args.init:
        model = load_checkpoint(args.init).tokenizer.train().requires_grad_(True)
    else:
        model = VQTokenizer(network)
    photos, held_out = _load_photos(args, model.config.image_size)
    _run_stage(TokenizerStage(model, photos, held_out, config), config, args)


def train_transformer(args: argparse.Namespace) -> None:
    """Run train-transformer."""
    import torch
    from tqdm import tqdm

    from maskgit_core.checkpoint import load_checkpoint
    from maskgit_core.transformer import build_transformer
    from maskgit_core.transformer_stage import (
        TransformerStage,
        extract_tokens,
        token_geometry,
    )

    check_range("crops", args.crops, 1, 5, whole=True)
    config = _read_settings(args, TRANSFORMER_DEFAULTS)
    tokenizer = load_checkpoint(args.tokenizer).tokenizer.requires_grad_(False)
    photos, held_out = _load_photos(args, tokenizer.config.image_size)

    def progress(batches: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return tqdm(batches, desc="extracting tokens", unit="batch")

    cache = Path(args.cache or args.out)
    data, val_data = (
        photos_set
        and extract_tokens(
            tokenizer,
            photos_set,
            crops=args.crops,
            cache=cache / f"tokens-{name}.safetensors",
            progress=progress,
        )
        for name, photos_set in (("train", photos), ("val", held_out))
    )
    from_data = {
        "codebook_size": tokenizer.config.codebook_size,
        "num_classes": len(photos.classes),
        "grid_size": tokenizer.config.grid_size,
    }
    torch.manual_seed(config.seed)
    if args.init:
        model = load_checkpoint(args.init).transformer.train().requires_grad_(True)
    else:
        network = TransformerConfig(
            **{**to_dict(_read_settings(args, TransformerConfig())), **from_data}
        )
        model = build_transformer(network)
        codebook = tokenizer.quantizer.normalized(tokenizer.quantizer.codebook.detach())
        generator = torch.Generator().manual_seed(config.seed)
        geometry = token_geometry(codebook, network.width, generator)
        with torch.no_grad():
            model.embedding.weight[: len(geometry)] = geometry
    stage = TransformerStage(model, tokenizer, data, val_data, config, SamplingConfig())
    _run_stage(stage, config, args)
