"""Token grids that a transformer has sampled, for a decoder to learn from beside those of photos.

A decoder that has seen only tokens of photos has never seen the small contradictions of sampled
ones; a critic that looks at images decoded from both teaches it to make the best of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskgit_core.files import write_atomically
from maskgit_core.pipeline import MaskGIT

SAMPLE_BATCH = 32


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
        path: safetensors file where they are kept; read where it holds as many.
        progress: wraps the numbers of the first grid of each batch.

    Raises:
        CheckpointError: the file cannot be written.
    """
    labels = torch.arange(count) % len(model.classes)
    if path.is_file():
        kept = load_file(path)
        if torch.equal(kept["labels"].long(), labels):
            return SampledTokens(kept["tokens"].long(), labels)
    parts = []
    for start in progress(range(0, count, SAMPLE_BATCH)):
        chosen = labels[start : start + SAMPLE_BATCH].tolist()
        for state in model.generate_steps(chosen, seed=start):
            tokens = state.tokens
        parts.append(tokens.cpu())
    grids = torch.cat(parts)
    stored = {"tokens": grids.to(torch.int32).contiguous(), "labels": labels.to(torch.int32)}
    write_atomically(path, lambda part: save_file(stored, part))
    return SampledTokens(grids, labels)
