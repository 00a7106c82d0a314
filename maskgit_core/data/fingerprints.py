"""Short hashes of what a cache was made from: networks, arrays, settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

HASHED_ROWS = 256
HASHED_BYTES = 2**30  # of photos


def hash_of_values(*values: Any) -> str:
    """Return a short hash of JSON values."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_of_rows(rows: np.ndarray) -> str:
    """Return a short hash of the values, type and shape of an array, read a few rows at a time."""
    digest = hashlib.sha256(f"{rows.dtype} {rows.shape}".encode())
    for start in range(0, len(rows), HASHED_ROWS):
        digest.update(np.ascontiguousarray(rows[start : start + HASHED_ROWS]).data)
    return digest.hexdigest()[:16]


def hash_of_photos(pixels: np.ndarray, labels: torch.Tensor) -> str:
    """Return a short hash of packed photos, of very many evenly spaced ones, and their labels."""
    some = pixels[:: -(-pixels.size // HASHED_BYTES)]
    return hash_of_values(hash_of_rows(some), len(pixels), labels.tolist())


def hash_of_networks(*networks: nn.Module) -> str:
    """Return a short hash of the settings of networks and of all their weights."""
    digest = hashlib.sha256()
    for network in networks:
        digest.update(f"{type(network).__name__} {getattr(network, 'config', None)}".encode())
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def hash_of_checkpoint(folder: Path) -> str:
    """Return a short hash of the settings and weights in a checkpoint folder, wherever it lies.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in (folder / "config.json", *sorted(folder.glob("*.safetensors"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
