"""Care for a codebook in training: where codes begin, and what becomes of those nobody chooses."""

from __future__ import annotations

import torch
from torch import Tensor

from maskgit_core.networks.tokenizer import VectorQuantizer

DEAD_SHARE = 0.02  # of the mean count; a code below it is revived


@torch.no_grad()
def kmeans(points: Tensor, num_centres: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Return float32 (num_centres, dim), Lloyd's centres of float32 (num, dim) points.

    A centre without points moves to a random point.
    """
    chosen = torch.randperm(len(points), generator=generator)[:num_centres]
    if len(chosen) < num_centres:
        chosen = torch.randint(0, len(points), (num_centres,), generator=generator)
    centres = points[chosen].clone()
    for _ in range(iterations):
        nearest = (centres.square().sum(1) - 2 * points @ centres.T).argmin(1)
        counts = torch.bincount(nearest, minlength=num_centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        spare = torch.randint(0, len(points), (num_centres,), generator=generator)
        means = sums / counts.clamp(min=1).unsqueeze(1)
        centres = torch.where(counts.unsqueeze(1) > 0, means, points[spare])
    return centres


@torch.no_grad()
def revive_dead_codes_(
    quantizers: tuple[VectorQuantizer, ...],
    latents: Tensor,
    counts: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Move codes that are hardly chosen onto random latents, in every quantiser given.

    Args:
        quantizers: the trained one and its EMA.
        latents: float32 (num, dim), of a batch.
        counts: int64 (K,), how often each code was chosen.
        generator: chooses the latents.

    Returns:
        int64 (num_dead,), the revived codes.
    """
    dead = (counts < counts.double().mean() * DEAD_SHARE).nonzero().flatten()
    chosen = torch.randint(0, len(latents), (len(dead),), generator=generator)
    for quantizer in quantizers:
        quantizer.codebook[dead] = latents[chosen]
    return dead
