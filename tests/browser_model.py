"""A small real `MaskGIT` with random weights, and a slow one whose steps can be watched."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from maskgit_core import MaskGIT, TokenizerConfig, TransformerConfig
from maskgit_core.decoding.loop import StepState
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.transformer import MaskedTransformer
from maskgit_core.weights.checkpoint import Checkpoint

CLASSES = ["forest", "mountain", "rose", "sea"]


class SlowMaskGIT(MaskGIT):
    """Rests before every step."""

    pause = 0.0

    def decode_tokens_steps(self, *args, **kwargs) -> Iterator[StepState]:
        """As the model's own, with a rest."""
        for state in super().decode_tokens_steps(*args, **kwargs):
            time.sleep(self.pause)
            yield state


def tiny_model(pause: float = 0.0, grid_size: int = 6, codebook_size: int = 32) -> SlowMaskGIT:
    """Random weights from a fixed seed; `pause` seconds before every step."""
    torch.manual_seed(0)
    tokenizer = VQTokenizer(
        TokenizerConfig(
            image_size=8 * grid_size,
            widths=(8, 8, 8),
            encoder_blocks=(1, 1, 1),
            decoder_blocks=(1, 1, 1),
            codebook_size=codebook_size,
            codebook_dim=4,
        )
    )
    transformer = MaskedTransformer(
        TransformerConfig(
            codebook_size=codebook_size,
            num_classes=len(CLASSES),
            grid_size=grid_size,
            width=32,
            depth=2,
            num_heads=2,
            mlp_width=64,
        )
    )
    # A fresh network hardly looks at its neighbours or its class; a test needs one that does.
    with torch.no_grad():
        for weights in transformer.parameters():
            if weights.ndim > 1:
                weights.normal_(0.0, 0.35)
    model = SlowMaskGIT(Checkpoint(tokenizer, transformer, list(CLASSES)))
    model.pause = pause
    return model
