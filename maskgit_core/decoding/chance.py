"""Where a decoding's random numbers come from: one generator an image, on the CPU.

Each image and step takes one uniform number a position for its tokens, whatever the positions that
are open and whatever else is in the batch, and, where confidence is noisy, one more. A token is
found by inverting its cumulative distribution at that number. A network may give logits that differ
in the last bits with the size of the batch; such a difference moves a draw only where the number
falls into it, so it practically never does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskgit_core.decoding.draw import Draw, draw_codes


def seeded_generator(seed: int) -> torch.Generator:
    """Return a CPU generator of which all 64 bits of the seed count.

    The Mersenne twister reads the lower 32 bits only; an upper half is mixed into them.
    """
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return torch.Generator().manual_seed(low ^ (high * 0x9E3779B1 & 0xFFFFFFFF))


class Chance:
    """The random numbers of a batch; another source is a class with the same three methods.

    Args:
        seeds: one whole number an image, in [0, 2**64).
        num_positions: P, of an image.
    """

    def __init__(self, seeds: Sequence[int], num_positions: int) -> None:
        self._generators = [seeded_generator(seed) for seed in seeds]
        self._num_positions = num_positions

    def generator(self, image: int) -> torch.Generator:
        """Return the generator of one image, for what is drawn before the first step."""
        return self._generators[image]

    def draw(
        self,
        step: int,
        images: Sequence[int],
        logits: Tensor,
        positions: Tensor,
        *,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> Draw:
        """Draw the tokens of one step.

        Args:
            step: 0-based.
            images: numbers of the R images in the step.
            logits: float32 (M, K), guided, at the open positions.
            positions: bool (R, P), which they are, ordered as `positions.nonzero()`.
            temperature, top_k, top_p: as in `draw_codes`.
        """
        uniform = torch.stack([self._uniform(image) for image in images]).to(logits.device)
        return draw_codes(
            logits, uniform[positions], temperature=temperature, top_k=top_k, top_p=top_p
        )

    def gumbel(self, step: int, images: Sequence[int]) -> Tensor:
        """Return standard Gumbel noise for the confidence of one step, float32 (R, P)."""
        uniform = torch.stack([self._uniform(image) for image in images])
        return -torch.log(-torch.log(uniform.clamp_min(torch.finfo(torch.float32).tiny)))

    def _uniform(self, image: int) -> Tensor:
        return torch.rand(self._num_positions, generator=self._generators[image])
