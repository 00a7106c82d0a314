"""Token grids that a transformer has sampled, for a decoder to learn from beside those of photos.

A decoder that has seen only tokens of photos has never seen the small contradictions of sampled
ones; a critic that looks at images decoded from both teaches it to make the best of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskgit_core.checkpoint import write_atomically
from maskgit_core.pipeline import MaskGIT

SAMPLE_BATCH = 32
TOKENS = "tokens"


def sampled_tokens(
    model: MaskGIT,
    count: int,
    path: Path,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Tensor:
    """Return int64 (count, h, w), sampled with the model's own settings, classes in turn.

    Args:
        model: a checkpoint with a transformer.
        count: how many grids.
        path: safetensors file where they are kept; read where it holds as many.
        progress: wraps the numbers of the first grid of each batch.

    Raises:
        CheckpointError: the file cannot be written.
    """
    if path.is_file():
        kept = load_file(path)[TOKENS]
        if len(kept) == count:
            return kept.long()
    parts = []
    for start in progress(range(0, count, SAMPLE_BATCH)):
        places = range(start, min(start + SAMPLE_BATCH, count))
        labels = [place % len(model.classes) for place in places]
        for state in model.generate_steps(labels, seed=start):
            tokens = state.tokens
        parts.append(tokens.cpu())
    grids = torch.cat(parts)
    stored = {TOKENS: grids.to(torch.int32).contiguous()}
    write_atomically(path, lambda part: save_file(stored, part))
    return grids
