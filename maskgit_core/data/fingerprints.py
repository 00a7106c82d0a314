"""Short hashes of what a cache was made from: networks, arrays, settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from torch import nn

HASHED_ROWS = 256


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


def hash_of_networks(*networks: nn.Module) -> str:
    """Return a short hash of the settings of networks and of all their weights."""
    digest = hashlib.sha256()
    for network in networks:
        digest.update(f"{type(network).__name__} {getattr(network, 'config', None)}".encode())
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
