"""The two training commands: a folder of photos in, a checkpoint folder out."""

from __future__ import annotations

import argparse
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
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
from maskgit_core.presets import (
    FROM_DATA,
    TOKENIZER_ONLY,
    TRANSFORMER_ONLY,
    Preset,
    load_preset,
    preset_names,
    with_settings,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskgit_core.data import Photos
    from maskgit_core.training import Report, Stage

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


def _add_settings(
    parser: argparse.ArgumentParser, title: str, default: Any, leave_out: Sequence[str] = ()
) -> None:
    """Add one option for every field of a configuration; only what is given is in the result."""
    group = parser.add_argument_group(title)
    described = _descriptions(type(default))
    for field in fields(default):
        if field.name in leave_out:
            continue
        value = getattr(default, field.name)
        option = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        elif isinstance(value, tuple):
            kind = {"nargs": "+", "type": type(value[0]), "metavar": "N"}
        else:
            kind = {"type": type(value), "metavar": "N" if isinstance(value, int) else "X"}
        text = f"{described.get(field.name, '')} (default: {_shown(value)})".strip()
        group.add_argument(option, default=argparse.SUPPRESS, help=text, **kind)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _descriptions(config_class: type) -> dict[str, str]:
    """Return what the docstring of a configuration says of each setting."""
    text = inspect.getdoc(config_class) or ""
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {5,}.*)*)", text, flags=re.MULTILINE)
    return {
        name.strip(): " ".join(words.split()).replace("%", "%%")
        for names, words in entries
        for name in names.split(",")
    }


def _read_settings(args: argparse.Namespace, default: Any) -> Any:
    values = to_dict(default)
    for name in values:
        if hasattr(args, name):
            values[name] = getattr(args, name)
    return type(default)(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --data, --val and --out."""
    parser.add_argument(
        "--data",
        required=True,
        help="directory with one folder per class, or with train/ and val/ of that form",
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


def _preset(args: argparse.Namespace) -> Preset | None:
    return load_preset(args.preset) if args.preset else None


def _settings(
    args: argparse.Namespace, stage: str, training: TrainConfig, network: Any
) -> tuple[TrainConfig, Any]:
    """Return training and network settings with --set, then with the options that were given."""
    names = (f"{stage}_training", stage)
    changed = with_settings(dict(zip(names, (training, network), strict=True)), args.set)
    return tuple(_read_settings(args, changed[name]) for name in names)  # type: ignore[return-value]


def tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of train-tokenizer."""
    _common_arguments(parser)
    parser.add_argument(
        "--init",
        default=None,
        help="checkpoint whose tokenizer to start from; with --continuous-steps 0 also from its "
        "codes, which then move little, so that its transformer adapts quickly",
    )
    _add_settings(parser, "training", TOKENIZER_DEFAULTS, TRANSFORMER_ONLY)
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
    parser.add_argument("--init", default=None, help="checkpoint whose transformer to start from")
    _add_settings(parser, "training", TRANSFORMER_DEFAULTS, TOKENIZER_ONLY)
    _add_settings(parser, "network", TransformerConfig(), FROM_DATA)


def data_folders(args: argparse.Namespace) -> tuple[Path, Path | None]:
    """Return the folders of training photos and of held-out ones."""
    data = Path(args.data)
    held_out = Path(args.val) if args.val else None
    if not _is_split(data):
        return data, held_out
    if held_out is None and (data / "val").is_dir():
        held_out = data / "val"
    return data / "train", held_out


def _is_split(data: Path) -> bool:
    """Whether data/train holds the training data, and is not a class of this name."""
    if not (data / "train").is_dir():
        return False
    names = {path.name for path in data.iterdir() if path.is_dir()}
    return names <= {"train", "val", "test"} or any(p.is_dir() for p in (data / "train").iterdir())


def load_photos(args: argparse.Namespace, image_size: int) -> tuple[Photos, Photos | None]:
    """Read training photos and held-out ones, with a bar."""
    from tqdm import tqdm

    from maskgit_core.data import pack_photos, packed_size, scan_folder
    from maskgit_core.distributed import first_alone

    def progress(files: Sequence[str]) -> Sequence[str]:
        return tqdm(files, desc="reading photos", unit="photo")

    def pack(folder: Path) -> Photos:
        return first_alone(lambda: pack_photos(folder, size, cache_dir=cache, progress=progress))

    train_dir, val_dir = data_folders(args)
    if val_dir is not None:
        # Names first: reading a large folder takes minutes.
        wanted, got = scan_folder(train_dir).classes, scan_folder(val_dir).classes
        if got != wanted:
            raise ValueError(
                f"val must have the classes of the training data, {', '.join(wanted)}; "
                f"got {', '.join(got)}"
            )
    cache = Path(args.cache or args.out)
    size = packed_size(image_size)
    return pack(train_dir), pack(val_dir) if val_dir is not None else None


@contextmanager
def step_report(config: TrainConfig, out: Path) -> Iterator[Report]:
    """Yield a report for `train`: a progress bar, and TensorBoard's files where it is installed."""
    from tqdm import tqdm

    from maskgit_core.tensorboard import open_writer

    bars: list[tqdm] = []
    writer = open_writer(out)

    def report(step: int, measures: dict[str, float]) -> None:
        if not bars:
            # Not earlier: an error in the settings is one line, without a bar beside it.
            bars.append(tqdm(total=config.max_steps, initial=step - 1, unit="step"))
        bars[0].update(step - bars[0].n)
        if measures:
            shown = {"loss": "loss", "psnr": "psnr", "images_per_second": "images/s"}
            shown["accuracy"] = "accuracy"
            bars[0].set_postfix(
                {t: f"{measures[k]:.3g}" for k, t in shown.items() if k in measures}
            )
            if writer is not None:
                writer.add(step, measures)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()
        if writer is not None:
            writer.close()


def _run_stage(stage: Stage, config: TrainConfig, args: argparse.Namespace) -> None:
    from maskgit_core.distributed import is_first
    from maskgit_core.training import train

    seconds = math.inf if args.max_minutes is None else 60 * args.max_minutes
    out = Path(args.out)
    if not is_first():
        train(stage, config, out, report=None, max_seconds=seconds)
        return
    with step_report(config, out) as report:
        step = train(stage, config, out, report=report, max_seconds=seconds)
    word = "finished" if step >= config.max_steps else "stopped; the same command goes on"
    print(f"{word} at step {step}; weights in {out / 'checkpoint'}")


def _check_minutes(args: argparse.Namespace) -> None:
    if args.max_minutes is not None:
        check_range("max_minutes", args.max_minutes, 0.0)


def _together(command: Callable[[argparse.Namespace], None]) -> Callable[..., None]:
    """Run a command together with the other processes, where torchrun started some."""

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> None:
        from maskgit_core.distributed import local_device, process_group

        with process_group(local_device(getattr(args, "device", "auto"))):
            command(args)

    return run


def _checked_device(args: argparse.Namespace, config: TrainConfig) -> torch.device:
    """Return where to train; a setting that does not fit it is told before minutes of reading."""
    from maskgit_core.distributed import local_device
    from maskgit_core.training import autocast_for, own_parts

    own_parts(config)
    device = local_device(getattr(args, "device", "auto"))
    autocast_for(config.precision, device)
    return device


@_together
def train_tokenizer(args: argparse.Namespace) -> None:
    """Run train-tokenizer."""
    import torch

    from maskgit_core.checkpoint import load_checkpoint
    from maskgit_core.tokenizer import VQTokenizer
    from maskgit_core.tokenizer_stage import TokenizerStage

    _check_minutes(args)
    preset = _preset(args)
    if preset is not None and preset.published_tokenizer:
        raise ValueError(
            f"preset {preset.name} trains no tokenizer, it keeps a published one: go on with "
            f"train-transformer --preset {preset.name}"
        )
    config, network = _settings(
        args,
        "tokenizer",
        preset.tokenizer_training if preset else TOKENIZER_DEFAULTS,
        preset.tokenizer if preset else TokenizerConfig(),
    )
    device = _checked_device(args, config)
    torch.manual_seed(config.seed)
    if args.init:
        model = load_checkpoint(args.init).tokenizer.train().requires_grad_(True)
        if not isinstance(model, VQTokenizer):
            raise ValueError(f"init must hold a tokenizer of this project; got {args.init}")
    elif config.freeze_codes:
        raise ValueError("freeze_codes needs init, a checkpoint whose codes are kept")
    else:
        model = VQTokenizer(network)
    photos, held_out = load_photos(args, model.config.image_size)
    fit_codes = not args.init or config.continuous_steps > 0
    stage = TokenizerStage(model, photos, held_out, config, device, fit_codes=fit_codes)
    _run_stage(stage, config, args)


def _initial_transformer(folder: str, from_data: dict[str, int]) -> nn.Module:
    from maskgit_core.checkpoint import load_checkpoint

    model = load_checkpoint(folder).transformer
    if model is None:
        raise ValueError(f"init must hold a transformer; {folder} holds a tokenizer only")
    for name, wanted in from_data.items():
        got = getattr(model.config, name)
        if got != wanted:
            raise ValueError(f"init must have {name} {wanted} as the data has; {folder} has {got}")
    return model.train().requires_grad_(True)


def new_transformer(network: TransformerConfig, tokenizer: nn.Module, seed: int) -> nn.Module:
    """Return a network with random weights, its codes placed as in the codebook."""
    import torch

    from maskgit_core.transformer import build_transformer
    from maskgit_core.transformer_stage import token_geometry

    model = build_transformer(network)
    codebook = tokenizer.quantizer.normalized(tokenizer.quantizer.codebook.detach()).cpu()
    geometry = token_geometry(codebook, network.width, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.embedding.weight[: len(geometry)] = geometry
    return model


@_together
def train_transformer(args: argparse.Namespace) -> None:
    """Run train-transformer."""
    import torch
    from tqdm import tqdm

    from maskgit_core.checkpoint import load_checkpoint
    from maskgit_core.data import scan_folder
    from maskgit_core.hub import resolve_checkpoint
    from maskgit_core.token_shards import extract_tokens
    from maskgit_core.transformer_stage import TransformerStage

    _check_minutes(args)
    preset = _preset(args)
    crops = args.crops if args.crops is not None else preset.data.crops if preset else 1
    check_range("crops", crops, 1, 5, whole=True)
    source = args.tokenizer or (preset.published_tokenizer if preset else "")
    if not source:
        raise ValueError("tokenizer is needed: the checkpoint folder that train-tokenizer wrote")
    tokenizer = load_checkpoint(resolve_checkpoint(source)).tokenizer.requires_grad_(False)
    # The network first: a mistake in its settings is told before minutes of reading.
    from_data = {
        "codebook_size": tokenizer.config.codebook_size,
        "num_classes": len(scan_folder(data_folders(args)[0]).classes),
        "grid_size": tokenizer.config.grid_size,
    }
    shape = preset.transformer if preset else TransformerConfig()
    config, network = _settings(
        args,
        "transformer",
        preset.transformer_training if preset else TRANSFORMER_DEFAULTS,
        replace(shape, **from_data),
    )
    device = _checked_device(args, config)
    torch.manual_seed(config.seed)
    if args.init:
        model = _initial_transformer(args.init, from_data)
    else:
        model = new_transformer(network, tokenizer, config.seed)
    photos, held_out = load_photos(args, tokenizer.config.image_size)

    tokenizer.to(device)

    def progress(batches: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return tqdm(batches, desc="extracting tokens", unit="batch")

    cache = Path(args.cache or args.out)
    data, val_data = (
        photos_set
        and extract_tokens(
            tokenizer,
            photos_set,
            crops=crops,
            cache=cache / f"tokens-{name}.safetensors",
            progress=progress,
        )
        for name, photos_set in (("train", photos), ("val", held_out))
    )
    sampling = preset.sampling if preset else SamplingConfig()
    stage = TransformerStage(model, tokenizer, data, val_data, config, sampling, device)
    _run_stage(stage, config, args)
