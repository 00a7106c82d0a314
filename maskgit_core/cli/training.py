"""The two training commands: a folder of photos in, a checkpoint folder out."""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskgit_core.cli.data import data_folders, fetch_data, load_photos
from maskgit_core.cli.options import (
    TOKENIZER_DEFAULTS,
    TRANSFORMER_DEFAULTS,
    asked_for,
    shape_notes,
    stage_settings,
)
from maskgit_core.config import (
    SamplingConfig,
    TokenizerConfig,
    TrainConfig,
    TransformerConfig,
    check_range,
)
from maskgit_core.training.presets import Preset, load_preset

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskgit_core.training.fine_tuning import Adapted
    from maskgit_core.training.loop import Report, Stage
    from maskgit_core.training.sampled_tokens import SampledTokens

SAMPLED_POOL = 2112
MOST_SAMPLED = 4 * SAMPLED_POOL
VIEWS_OF_A_SAMPLE = 20
SAMPLED_FILE = "sampled.safetensors"


@contextmanager
def step_report(config: TrainConfig, out: Path) -> Iterator[Report]:
    """Yield a report for `train`: a progress bar, and TensorBoard's files where it is installed."""
    from tqdm import tqdm

    from maskgit_core.training.tensorboard import open_writer

    bars: list[tqdm] = []
    writer = open_writer(out)

    def report(step: int, measures: dict[str, float]) -> None:
        if not bars:
            # Not earlier: an error in the settings is one line, without a bar beside it.
            bars.append(tqdm(total=config.max_steps, initial=step - 1, unit="step"))
        bars[0].update(step - bars[0].n)
        if measures:
            shown = {"loss": "loss", "psnr": "psnr", "images_per_second": "images/s"}
            shown |= {"accuracy": "accuracy", "data_share": "data share"}
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
    from maskgit_core.distributed.group import is_first
    from maskgit_core.training.loop import train
    from maskgit_core.training.run import data_share

    seconds = math.inf if args.max_minutes is None else 60 * args.max_minutes
    out = Path(args.out)
    if not is_first():
        train(stage, config, out, report=None, max_seconds=seconds)
        return
    with step_report(config, out) as report:
        step = train(stage, config, out, report=report, max_seconds=seconds)
    word = "finished" if step >= config.max_steps else "stopped; the same command goes on"
    share = data_share(out)
    told = "" if share is None else f"; making batches took {100 * share:.1f} % of the time"
    print(f"{word} at step {step}; weights in {out / 'checkpoint'}{told}")


def _preset(args: argparse.Namespace) -> Preset | None:
    return load_preset(args.preset) if args.preset else None


def _check_minutes(args: argparse.Namespace) -> None:
    if args.max_minutes is not None:
        check_range("max_minutes", args.max_minutes, 0.0)


def _together(command: Callable[[argparse.Namespace], None]) -> Callable[..., None]:
    """Run a command together with the other processes, where torchrun started some."""

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> None:
        from maskgit_core.distributed.group import local_device, process_group

        with process_group(local_device(getattr(args, "device", "auto"))):
            fetch_data(args)
            command(args)

    return run


def _checked_device(args: argparse.Namespace, config: TrainConfig) -> torch.device:
    """Return where to train; a setting that does not fit it is told before minutes of reading."""
    from maskgit_core.distributed.group import local_device
    from maskgit_core.training.loop import autocast_for, own_parts

    own_parts(config)
    device = local_device(getattr(args, "device", "auto"))
    autocast_for(config.precision, device)
    return device


@_together
def train_tokenizer(args: argparse.Namespace) -> None:
    """Run train-tokenizer."""
    import torch

    from maskgit_core.networks.registry import trains
    from maskgit_core.networks.tokenizer import VQTokenizer
    from maskgit_core.training.fine_tuning import adapted_tokenizer
    from maskgit_core.training.tokenizer_stage import TokenizerStage
    from maskgit_core.weights.checkpoint import load_checkpoint
    from maskgit_core.weights.hub import resolve_checkpoint

    _check_minutes(args)
    preset = _preset(args)
    if preset is not None and preset.published_tokenizer:
        raise ValueError(
            f"preset {preset.name} trains no tokenizer, it keeps a published one: go on with "
            f"train-transformer --preset {preset.name}"
        )
    config, network = stage_settings(
        args,
        "tokenizer",
        preset.tokenizer_training if preset else TOKENIZER_DEFAULTS,
        preset.tokenizer if preset else TokenizerConfig(),
    )
    device = _checked_device(args, config)
    torch.manual_seed(config.seed)
    notes: list[str] = []
    if args.init:
        model = load_checkpoint(resolve_checkpoint(args.init)).tokenizer
        if not trains(model):
            raise ValueError(f"init must hold a tokenizer of this project; got {args.init}")
        if preset is not None or asked_for(args, "image_size"):
            model, notes = adapted_tokenizer(model, network.image_size)
        notes += shape_notes(args, network, model.config)
        model = model.train().requires_grad_(True)
    elif config.freeze_codes:
        raise ValueError("freeze_codes needs init, a checkpoint whose codes are kept")
    else:
        model = VQTokenizer(network)
    _tell(notes)
    photos, held_out = load_photos(args, model.config.image_size)
    fit_codes = not args.init or config.continuous_steps > 0
    stage = TokenizerStage(
        model,
        photos,
        held_out,
        config,
        device,
        fit_codes=fit_codes,
        sampled=_sampled(args, model, photos.classes, config, device),
    )
    _run_stage(stage, config, args)


def _sampled(
    args: argparse.Namespace,
    tokenizer: nn.Module,
    classes: list[str],
    config: TrainConfig,
    device: torch.device,
) -> SampledTokens | None:
    """Return tokens of the transformer in --sampled; its codes and classes must be those here.

    A long run gets more of them, so that its critic does not come to know each.
    """
    if not config.sampled_images:
        return None
    from tqdm import tqdm

    from maskgit_core.pipeline import MaskGIT
    from maskgit_core.training.fine_tuning import check_same_tokens
    from maskgit_core.training.sampled_tokens import sampled_tokens

    source = args.sampled or args.init
    model = MaskGIT.from_pretrained(source).to(device)
    check_same_tokens(tokenizer, model.tokenizer, "sampled", str(source))
    if model.grid_size != tokenizer.config.grid_size:
        raise ValueError(
            f"sampled must have the grid of init, {tokenizer.config.grid_size} tokens a side; "
            f"{source} has {model.grid_size}"
        )
    if model.classes != classes:
        raise ValueError(
            f"sampled must have the classes of data, {', '.join(classes)}; {source} has "
            f"{', '.join(model.classes)}"
        )

    def progress(starts: range) -> tqdm:
        return tqdm(starts, desc="sampling tokens", unit="batch")

    wanted = config.sampled_images * config.max_steps // VIEWS_OF_A_SAMPLE
    count = min(max(wanted, SAMPLED_POOL), MOST_SAMPLED)
    return sampled_tokens(model, count, Path(args.out) / SAMPLED_FILE, progress)


def _initial_transformer(
    source: str, tokenizer: nn.Module, classes: list[str], seed: int
) -> Adapted:
    """Return the transformer of --init for the tokenizer's grid and the classes of the data.

    Raises:
        ValueError: a tokenizer only, one that was trained on other tokens, or a network or grid
            that cannot be adapted.
    """
    from maskgit_core.training.fine_tuning import (
        Adapted,
        adapted_transformer,
        check_same_tokens,
    )
    from maskgit_core.weights.checkpoint import load_checkpoint
    from maskgit_core.weights.hub import resolve_checkpoint

    given = load_checkpoint(resolve_checkpoint(source))
    if given.transformer is None:
        raise ValueError(f"init must hold a transformer; {source} holds a tokenizer only")
    moved = check_same_tokens(tokenizer, given.tokenizer, "init", source, may_move=True)
    grid = tokenizer.config.grid_size
    model, notes = adapted_transformer(given.transformer, given.classes, classes, grid, seed)
    return Adapted(model, moved + notes)


def _tell(notes: Sequence[str]) -> None:
    """Print what became of the networks of --init, once whatever the number of processes."""
    from maskgit_core.distributed.group import is_first

    if is_first():
        for note in notes:
            print(note)


def new_transformer(network: TransformerConfig, tokenizer: nn.Module, seed: int) -> nn.Module:
    """Return a network with random weights, its codes placed as in the codebook."""
    import torch

    from maskgit_core.networks.registry import build_transformer
    from maskgit_core.training.transformer_stage import token_geometry

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

    from maskgit_core.data.photos import scan_folder
    from maskgit_core.data.shards import extract_tokens
    from maskgit_core.training.fine_tuning import adapted_tokenizer
    from maskgit_core.training.transformer_stage import TransformerStage
    from maskgit_core.weights.checkpoint import load_checkpoint
    from maskgit_core.weights.hub import resolve_checkpoint

    _check_minutes(args)
    preset = _preset(args)
    crops = args.crops if args.crops is not None else preset.data.crops if preset else 1
    check_range("crops", crops, 1, 5, whole=True)
    source = args.tokenizer or (preset.published_tokenizer if preset else "")
    if not source:
        raise ValueError("tokenizer is needed: the checkpoint folder that train-tokenizer wrote")
    tokenizer = load_checkpoint(resolve_checkpoint(source)).tokenizer.requires_grad_(False)
    notes: list[str] = []
    if args.image_size is not None:
        tokenizer, notes = adapted_tokenizer(tokenizer, args.image_size)
    # The network first: a mistake in its settings is told before minutes of reading.
    classes = scan_folder(data_folders(args)[0]).classes
    from_data = {
        "codebook_size": tokenizer.config.codebook_size,
        "num_classes": len(classes),
        "grid_size": tokenizer.config.grid_size,
    }
    shape = preset.transformer if preset else TransformerConfig()
    config, network = stage_settings(
        args,
        "transformer",
        preset.transformer_training if preset else TRANSFORMER_DEFAULTS,
        replace(shape, **from_data),
    )
    device = _checked_device(args, config)
    torch.manual_seed(config.seed)
    if args.init:
        model, told = _initial_transformer(args.init, tokenizer, classes, config.seed)
        notes += told + shape_notes(args, network, model.config)
        model = model.train().requires_grad_(True)
    else:
        model = new_transformer(network, tokenizer, config.seed)
    _tell(notes)
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
