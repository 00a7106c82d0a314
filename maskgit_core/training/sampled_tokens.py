"""Token grids that a transformer has sampled, for a decoder to learn from beside those of photos.

A decoder that has seen only tokens of photos has never seen the small contradictions of sampled
ones; a discriminator that looks at images decoded from both teaches it to make the best of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maskgit_core.config import to_dict
from maskgit_core.data.fingerprints import hash_of_networks
from maskgit_core.files import write_atomically
from maskgit_core.pipeline import MaskGIT

SAMPLE_BATCH = 32
MADE_FROM = "made_from"  # in the file's own list of facts

logger = logging.getLogger(__name__)


class SampledTokens(NamedTuple):
    """Sampled grids.

    Attributes:
        tokens: int64 (num, h, w).
        labels: int64 (num,), the class each was sampled for.
    """

    tokens: Tensor
    labels: Tensor


def sampled_tokens(
    model: MaskGIT,
    count: int,
    path: Path,
    progress: Callable[[range], Iterable[int]] = iter,
) -> SampledTokens:
    """Return grids sampled with the model's own settings, classes in turn.

    Args:
        model: a checkpoint with a transformer.
        count: how many grids.
        path: safetensors file where they are kept; read where it holds as many of this model.
        progress: wraps the numbers of the first grid of each batch.

    Raises:
        CheckpointError: the file cannot be written.
    """
    labels = torch.arange(count) % len(model.classes)
    made_from = f"{hash_of_networks(model.transformer)} {to_dict(model.sampling)} {count}"
    grids = _kept(path, made_from)
    if grids is not None:
        return SampledTokens(grids, labels)
    parts = []
    for start in progress(range(0, count, SAMPLE_BATCH)):
        chosen = labels[start : start + SAMPLE_BATCH].tolist()
        for state in model.generate_steps(chosen, seed=start):
            tokens = state.tokens
        parts.append(tokens.cpu())
    grids = torch.cat(parts)
    stored = {"tokens": grids.to(torch.int32).contiguous()}
    write_atomically(path, lambda part: save_file(stored, part, metadata={MADE_FROM: made_from}))
    return SampledTokens(grids, labels)


def _kept(path: Path, made_from: str) -> Tensor | None:
    """Return grids int64 (num, h, w) of a file; None where it is missing, damaged or of another."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(MADE_FROM) == made_from:
                return file.get_tensor("tokens").long()
            why = "it was sampled from another model"
    except (SafetensorError, OSError, ValueError) as error:
        why = f"it is damaged: {error}"
    logger.warning("sampling tokens again, %s does not fit: %s", path, why)
    return None
