"""The model that `benchmark` measures: a checkpoint, or a known shape with random weights.

Speed and memory depend on shapes, not on weights, so `random:NAME` measures a published network
without its weights being there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from maskgit_core.config import SamplingConfig, TokenizerConfig, TransformerConfig
from maskgit_core.networks.registry import build_transformer
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.vqgan import VQGAN, VQGANConfig
from maskgit_core.pipeline import MaskGIT
from maskgit_core.weights.checkpoint import Checkpoint
from maskgit_core.weights.imagenet import IMAGENET_CLASSES, imagenet_classes

RANDOM_PREFIX = "random:"
_IMAGENET: dict[str, Any] = {"num_classes": IMAGENET_CLASSES, "grid_size": 16}
# Tokenizer, its settings, and those of the transformer.
SHAPES: dict[str, tuple[type[nn.Module], Any, TransformerConfig]] = {
    # The default shapes of the two training commands.
    "embedded": (VQTokenizer, TokenizerConfig(), TransformerConfig()),
    # Halton-MaskGIT tiny (Besnier et al. 2025) on LlamaGen's tokenizer (Sun et al. 2024).
    "imagenet-256-tiny": (
        VQGAN,
        VQGANConfig(codebook_size=16384, codebook_dim=8, l2_normalize=True),
        TransformerConfig(
            codebook_size=16384,
            width=384,
            depth=6,
            num_heads=6,
            mlp_width=1024,
            kind="adaln",
            **_IMAGENET,
        ),
    ),
    # The v1.0 PyTorch reproduction of MaskGIT (Besnier and Chen 2023) on taming's VQGAN.
    "maskgit-v1-256": (
        VQGAN,
        VQGANConfig(),
        TransformerConfig(
            codebook_size=1024, width=768, depth=24, num_heads=16, mlp_width=3072, **_IMAGENET
        ),
    ),
}


def is_random(name: str) -> bool:
    """Whether a name asks for random weights."""
    return name.startswith(RANDOM_PREFIX)


def load_model(name: str) -> MaskGIT:
    """Return the model of a checkpoint folder, a known name, or `random:SHAPE`.

    Random weights are the same on every call; no weight is zero, so that no part of a network
    is without effect.

    Raises:
        ValueError: an unknown shape, naming the known ones.
        CheckpointError: a checkpoint that is missing or damaged.
    """
    if not is_random(name):
        return MaskGIT.from_pretrained(name)
    shape = name.removeprefix(RANDOM_PREFIX)
    if shape not in SHAPES:
        known = ", ".join(RANDOM_PREFIX + known for known in SHAPES)
        raise ValueError(f"model must be a checkpoint or one of {known}; got {name!r}")
    build, settings, config = SHAPES[shape]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer, transformer = build(settings), build_transformer(config)
        for parameter in [*tokenizer.parameters(), *transformer.parameters()]:
            if not bool(parameter.detach().any()):
                nn.init.normal_(parameter, std=0.02)
    names = [f"class {number}" for number in range(config.num_classes)]
    classes = imagenet_classes() if config.num_classes == IMAGENET_CLASSES else names
    return MaskGIT(Checkpoint(tokenizer, transformer, classes, SamplingConfig()))
