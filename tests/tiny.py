"""Small networks, photos and settings that train or decode in a blink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskgit_core import (
    MaskGIT,
    TokenizerConfig,
    TokenizerTrainConfig,
    TransformerConfig,
    TransformerTrainConfig,
)
from maskgit_core.data.photos import Photos, packed_size
from maskgit_core.networks.registry import build_transformer
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.transformer import AdaLNMaskedTransformer, MaskedTransformer
from maskgit_core.weights.checkpoint import Checkpoint

CLASSES = ["forest", "sea", "été"]
TOKENIZER = TokenizerConfig(
    image_size=16,
    widths=(8, 16),
    encoder_blocks=(1, 1),
    decoder_blocks=(1, 1),
    codebook_size=32,
    codebook_dim=4,
)
TRANSFORMER = TransformerConfig(
    codebook_size=32,
    num_classes=len(CLASSES),
    grid_size=4,
    width=16,
    depth=2,
    num_heads=2,
    mlp_width=32,
)
_SHORT = {"max_steps": 12, "batch_size": 4, "learning_rate": 2e-3, "warmup_steps": 2}
_SHORT |= {"log_every": 1, "sample_every": 6, "save_every": 5}
# Settings of the first stage, the tokenizer's, and of the second.
FIRST = TokenizerTrainConfig(**_SHORT, continuous_steps=4, revive_every=3)
SECOND = TransformerTrainConfig(**_SHORT)
# The same as options of the command line.
TOKENIZER_OPTIONS = (
    "--image-size 16 --widths 8 16 --encoder-blocks 1 1 --decoder-blocks 1 1 "
    "--codebook-size 32 --codebook-dim 4"
).split()
TRANSFORMER_OPTIONS = "--width 16 --depth 1 --num-heads 2 --mlp-width 32".split()


def tokenizer(seed: int = 0, **changes: object) -> VQTokenizer:
    """A tokenizer with random weights, those that start at zero included."""
    torch.manual_seed(seed)
    return _shaken(VQTokenizer(replace(TOKENIZER, **changes)))


def transformer(seed: int = 0, **changes: object) -> MaskedTransformer | AdaLNMaskedTransformer:
    """A transformer whose logits depend on everything that it is given."""
    torch.manual_seed(seed)
    return _shaken(build_transformer(replace(TRANSFORMER, **changes)))


def _shaken(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module.eval()


def model(seed: int = 0) -> MaskGIT:
    """A model with random weights."""
    return MaskGIT(Checkpoint(tokenizer(seed), transformer(seed), list(CLASSES)))


def picture(seed: int, size: tuple[int, int] = (20, 24), mode: str = "RGB") -> Image.Image:
    """A smooth random photo, `size` is (width, height)."""
    values = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).convert(mode)


def left_half(size: tuple[int, int] = (20, 24)) -> np.ndarray:
    """Bool (height, width), true in the left half; `size` is (width, height)."""
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[:, : max(1, size[0] // 2)] = True
    return mask


def write_photos(root: Path, classes: list[str] | None = None, count: int = 3) -> Path:
    """Write a folder of photos for each class, of differing sizes."""
    for label, name in enumerate(classes if classes is not None else CLASSES):
        folder = root / name
        folder.mkdir(parents=True)
        for index in range(count):
            size = (18 + 5 * index, 30 - 3 * index)
            picture(100 * label + index, size).save(folder / f"{index}.png")
    return root


def photos(count: int = 24) -> Photos:
    """Packed photos in memory, with the margin for crops."""
    side = packed_size(TOKENIZER.image_size)
    pixels = np.stack([np.asarray(picture(seed, (side, side))) for seed in range(count)])
    return Photos(pixels, torch.arange(count) % len(CLASSES), list(CLASSES), [])


def images(count: int = 2, seed: int = 0) -> torch.Tensor:
    """Float32 (count, 3, 16, 16) in [-1, 1]."""
    pixels = [np.asarray(picture(seed + index, (16, 16))) for index in range(count)]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def leftovers(folder: Path) -> list[str]:
    """Names of files that an interrupted write left behind."""
    return [p.name for p in folder.rglob("*") if p.name.startswith(".") or p.suffix == ".part"]
