"""What something was made from, by content: runs and caches compare it before they go on.

A path says nothing: another file may lie there, and the same one elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from maskgit_core.data.photos import Photos
from maskgit_core.data.shards import ShardedTokens, TokenData

LENGTH = 16  # hexadecimal digits that are kept
PHOTOS_AT_ONCE = 256
ALL_UP_TO = 2**30  # bytes of photos; of more, so many are looked at, evenly spaced


def of_bytes(pieces: Iterable[bytes | np.ndarray]) -> str:
    """Return the fingerprint of pieces of memory, in their order."""
    digest = hashlib.blake2b()
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece) if isinstance(piece, np.ndarray) else piece)
    return digest.hexdigest()[:LENGTH]


def of_weights(*modules: nn.Module) -> str:
    """Return the fingerprint of networks: names and values of what they hold."""

    def pieces() -> Iterable[bytes | np.ndarray]:
        for module in modules:
            for name, tensor in module.state_dict().items():
                yield f"{name} {tuple(tensor.shape)}".encode()
                yield tensor.detach().float().cpu().numpy()

    return of_bytes(pieces())


def of_checkpoint(folder: Path) -> str:
    """Return the fingerprint of a checkpoint folder: its settings and weights.

    Raises:
        OSError: a file cannot be read.
    """
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return of_bytes(piece for path in files for piece in (path.name.encode(), path.read_bytes()))


def of_photos(photos: Photos) -> str:
    """Return the fingerprint of packed photos and their labels."""
    pixels = photos.pixels
    stride = -(-pixels.size // ALL_UP_TO)

    def pieces() -> Iterable[bytes | np.ndarray]:
        yield repr(pixels.shape).encode()
        yield photos.labels.numpy()
        for start in range(0, len(pixels), PHOTOS_AT_ONCE * stride):
            yield pixels[start : start + PHOTOS_AT_ONCE * stride : stride]

    return of_bytes(pieces())


def of_tokens(data: TokenData) -> str:
    """Return the fingerprint of token grids and their labels."""
    tokens = data.tokens
    shards: list[Tensor] = tokens.shards if isinstance(tokens, ShardedTokens) else [tokens]
    return of_bytes([data.labels.numpy(), *(shard.contiguous().numpy() for shard in shards)])
