"""The command train-transformer: photos and a tokenizer in, a model out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskgit_core.cli.data import data_folders, load_photos
from maskgit_core.cli.options import TRANSFORMER_DEFAULTS, shape_notes, stage_settings
from maskgit_core.cli.train_stage import (
    check_minutes,
    checked_device,
    given_preset,
    run_stage,
    started_from,
    tell,
    together,
)
from maskgit_core.config import SamplingConfig, TransformerConfig, check_range

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskgit_core.data.photos import Photos
    from maskgit_core.data.shards import TokenData
    from maskgit_core.training.fine_tuning import Adapted


@together
def train_transformer(args: argparse.Namespace) -> None:
    """Run train-transformer."""
    import torch

    from maskgit_core.data.photos import scan_folder
    from maskgit_core.distributed.group import first_alone
    from maskgit_core.training.fine_tuning import adapted_tokenizer
    from maskgit_core.training.transformer_stage import TransformerStage
    from maskgit_core.weights.checkpoint import load_checkpoint
    from maskgit_core.weights.hub import resolve_checkpoint

    check_minutes(args)
    preset = given_preset(args)
    crops = args.crops if args.crops is not None else preset.data.crops if preset else 1
    check_range("crops", crops, 1, 5, whole=True)
    source = args.tokenizer or (preset.published_tokenizer if preset else "")
    if not source:
        raise ValueError("tokenizer is needed: the checkpoint folder that train-tokenizer wrote")
    source = first_alone(lambda: resolve_checkpoint(source))
    tokenizer = load_checkpoint(source).tokenizer.requires_grad_(False)
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
    device = checked_device(args, config)
    torch.manual_seed(config.seed)
    if args.init:
        folder = first_alone(lambda: resolve_checkpoint(args.init))
        model, told = _initial_transformer(folder, tokenizer, classes, config.seed)
        notes += told + shape_notes(args, network, model.config)
        model = model.train().requires_grad_(True)
    else:
        model = new_transformer(network, tokenizer, config.seed)
    tell(notes)
    photos, held_out = load_photos(args, tokenizer.config.image_size)

    tokenizer.to(device)
    cache = Path(args.cache or args.out)
    data = _tokens(tokenizer, photos, crops, cache / "tokens-train.safetensors")
    val_data = None
    if held_out is not None:
        val_data = _tokens(tokenizer, held_out, crops, cache / "tokens-val.safetensors")
    sampling = preset.sampling if preset else SamplingConfig()
    stage = TransformerStage(model, tokenizer, data, val_data, config, sampling, device)
    stage.made_from |= started_from(args.init and folder)
    run_stage(stage, config, args)


def _tokens(tokenizer: nn.Module, photos: Photos, crops: int, cache: Path) -> TokenData:
    from tqdm import tqdm

    from maskgit_core.data.shards import extract_tokens

    def progress(batches: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        return tqdm(batches, desc="extracting tokens", unit="batch")

    return extract_tokens(tokenizer, photos, crops=crops, cache=cache, progress=progress)


def _initial_transformer(
    folder: Path, tokenizer: nn.Module, classes: list[str], seed: int
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

    given = load_checkpoint(folder)
    if given.transformer is None:
        raise ValueError(f"init must hold a transformer; {folder} holds a tokenizer only")
    moved = check_same_tokens(tokenizer, given.tokenizer, "init", str(folder), may_move=True)
    grid = tokenizer.config.grid_size
    model, notes = adapted_transformer(given.transformer, given.classes, classes, grid, seed)
    return Adapted(model, moved + notes)


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
