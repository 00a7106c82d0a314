"""The two files of imagenet-256-tiny as they are published, with one block and 64 codes."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import torch

from maskgit_core.config import TransformerConfig
from maskgit_core.networks.transformer import AdaLNMaskedTransformer
from maskgit_core.weights.families.transformers import halton_rule
from maskgit_core.weights.known import KNOWN_WEIGHTS
from maskgit_core.weights.rules import source_shapes

PARITY = Path(__file__).parent / "fixtures" / "parity"
TINY = KNOWN_WEIGHTS["imagenet-256-tiny"]
TOKENIZER_KEY = (TINY.tokenizer.repo, TINY.tokenizer.path)
TRANSFORMER_KEY = (TINY.transformer.repo, TINY.transformer.path)
CONFIG = TransformerConfig(
    kind="adaln",
    codebook_size=64,
    num_classes=3,
    grid_size=4,
    width=384,
    depth=1,
    num_heads=6,
    mlp_width=256,
)


@cache
def published_files() -> dict[tuple[str, str], bytes]:
    """(repository, path) -> content, in the published nesting."""
    network = AdaLNMaskedTransformer(CONFIG)
    rules = {name: halton_rule(name, CONFIG) for name in network.state_dict()}
    random = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=random) * 0.02
        for name, shape in source_shapes(rules, network, 6).items()
    }
    weights["head.weight"] = weights["tok_emb.weight"]
    content = {"iter": 1, "global_epoch": 1, "model_state_dict": weights}
    file = io.BytesIO()
    torch.save({**content, "optimizer_state_dict": None}, file)
    return {
        TOKENIZER_KEY: (PARITY / "llamagen-vq" / "weights.pt").read_bytes(),
        TRANSFORMER_KEY: file.getvalue(),
    }
