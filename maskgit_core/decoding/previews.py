"""Pictures of a run in progress: every step gets one, but only few are decoded before the end.

Decoding all steps takes longer than half the run on a small model. So a part of the time is set
aside for pictures; a step that comes too early shows the last decoded picture with the new tokens
pasted in as their codes look, and can be decoded when the run is over. The last step is decoded
exactly, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from maskgit_core.pixels import from_uint8

SHARE = 0.1  # of a run's time, about what decoding pictures may take before the end
FILL_BATCH = 16  # images


class LivePictures:
    """The pictures of one run, made as its steps arrive.

    Args:
        model: a `MaskGIT`.
        share: of the time between two pictures, what decoding may take; 1 decodes every step.
        clock: seconds of work of this process. Not of the day: other programs on the machine must
            not change what is decoded, nor may the threads in which a run goes on.

    Attributes:
        skipped: the tokens of the steps that were not decoded, by number of the call of `of`.
        images: what the last call returned; of finished grids the exact images.
    """

    def __init__(
        self,
        model: Any,
        share: float = SHARE,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.skipped: dict[int, Tensor] = {}
        self.images: Tensor | None = None
        self._model, self._clock = model, clock
        self._pause = 1 / share - 1  # between two pictures, in times of what a picture takes
        self._due = -float("inf")
        self._count = 0
        self._decoded: tuple[Tensor, Tensor] | None = None

    def of(self, tokens: Tensor) -> Tensor:
        """Return float32 (B, 3, H, W) in [-1, 1] of the next step's tokens, int64 (B, h, w).

        What masked cells show means nothing.
        """
        number, began = self._count, self._clock()
        self._count += 1
        finished = not bool((tokens == self._model.mask_token_id).any())
        if finished:
            self.images = self._model.decode(tokens)
        elif self._decoded is not None and began < self._due:
            self.skipped[number] = tokens
            self.images = self._pasted(tokens)
            return self.images
        else:
            self.images = self._model.preview(tokens)
        ended = self._clock()
        self._due = ended + (ended - began) * self._pause
        self._decoded = (tokens.cpu(), self.images)
        return self.images

    def _pasted(self, tokens: Tensor) -> Tensor:
        assert self._decoded is not None  # the first pictures are decoded
        before, images = self._decoded
        tokens = tokens.cpu()
        count, rows, columns = tokens.shape
        new = (tokens != before) & (tokens != self._model.mask_token_id)
        patches = from_uint8(self._model.codebook_patches()[tokens[new].numpy()])
        images = images.clone()
        cells = images.view(count, 3, rows, images.shape[2] // rows, columns, -1)
        cells.permute(0, 2, 4, 1, 3, 5)[new] = patches
        return images

    def fill(self, seconds: float) -> Iterator[dict[int, Tensor]]:
        """Decode the steps that were skipped, in order, until so much work was done.

        Yields:
            For a few steps at once: their images as `of` would have decoded them, by number.
        """
        end = self._clock() + seconds
        waiting = sorted(self.skipped.items())
        while waiting and self._clock() < end:
            at_once = max(1, FILL_BATCH // len(waiting[0][1]))
            some, waiting = waiting[:at_once], waiting[at_once:]
            numbers, grids = zip(*some, strict=True)
            parts = self._model.preview(torch.cat(grids)).split(len(grids[0]))
            for number in numbers:
                del self.skipped[number]
            yield dict(zip(numbers, parts, strict=True))
