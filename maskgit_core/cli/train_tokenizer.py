"""The command train-tokenizer: a folder of photos in, a tokenizer out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.cli.data import load_photos
from maskgit_core.cli.options import TOKENIZER_DEFAULTS, asked_for, shape_notes, stage_settings
from maskgit_core.cli.train_stage import (
    check_minutes,
    checked_device,
    given_preset,
    run_stage,
    started_from,
    tell,
    together,
)
from maskgit_core.config import TokenizerConfig
from maskgit_core.training.settings import TokenizerTrainConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskgit_core.training.sampled_tokens import SampledTokens

SAMPLED_POOL = 2112
MOST_SAMPLED = 4 * SAMPLED_POOL
VIEWS_OF_A_SAMPLE = 20
SAMPLED_FILE = "sampled.safetensors"


@together
def train_tokenizer(args: argparse.Namespace) -> None:
    """Run train-tokenizer."""
    import torch

    from maskgit_core.distributed.group import first_alone
    from maskgit_core.networks.registry import trains
    from maskgit_core.networks.tokenizer import VQTokenizer
    from maskgit_core.training.fine_tuning import adapted_tokenizer
    from maskgit_core.training.tokenizer_stage import TokenizerStage
    from maskgit_core.weights.checkpoint import load_checkpoint
    from maskgit_core.weights.hub import resolve_checkpoint

    check_minutes(args)
    preset = given_preset(args)
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
    device = checked_device(args, config)
    torch.manual_seed(config.seed)
    notes: list[str] = []
    if args.init:
        folder = first_alone(lambda: resolve_checkpoint(args.init))
        model: Any = load_checkpoint(folder).tokenizer
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
    tell(notes)
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
    stage.made_from |= started_from(args.init and folder)
    run_stage(stage, config, args)


def _sampled(
    args: argparse.Namespace,
    tokenizer: nn.Module,
    classes: list[str],
    config: TokenizerTrainConfig,
    device: torch.device,
) -> SampledTokens | None:
    """Return tokens of the transformer in --sampled; its codes and classes must be those here.

    A long run gets more of them, so that its discriminator does not come to know each.
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
