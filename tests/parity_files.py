"""The reduced-size published files that several tests read, with the originals' numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from maskgit_core.weights.formats import read_weights

PARITY = Path(__file__).parent / "fixtures" / "parity"
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
TRANSFORMERS = {
    "maskgit-v1": ("weights.pth", 4),
    "halton": ("weights.pth", 4),
    "halton-proj2": ("weights.pth", 3),
    "google-generator": ("weights.msgpack", None),
}
TOKENIZERS = {
    "taming-vqgan": "weights.ckpt",
    "llamagen-vq": "weights.pt",
    "maskgit-vqgan": "pytorch_model.bin",
    "google-tokenizer": "weights.msgpack",
}
UNIT_RANGE = ("maskgit-vqgan", "google-tokenizer")


def tensors(family: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(PARITY / family / f"{name}.safetensors")


def weight_file(family: str) -> Path:
    """Return the weight file of a family."""
    file = TRANSFORMERS[family][0] if family in TRANSFORMERS else TOKENIZERS[family]
    return PARITY / family / file


def resave(
    path: Path, family: str, change: Callable[[dict[str, torch.Tensor]], object] = id
) -> Path:
    """Write a copy of a file whose flat tensors went through change(tensors)."""
    content = dict(read_weights(weight_file(family)).tensors)
    change(content)
    torch.save({"model_state_dict": content}, path)
    return path
