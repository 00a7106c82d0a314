"""What the parts of `benchmark` share: the model, its plain counterpart, inputs, expectations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from maskgit_core.benchmark.plain_decoding import plain_images, plain_steps, plain_transformer
from maskgit_core.benchmark.timing import Row, in_turn, seconds, spread
from maskgit_core.config import SamplingConfig
from maskgit_core.pipeline import MaskGIT

Job = tuple[str, Callable[[], list[Row]]]
GUIDANCE_SCALE = 3.0
# A run that is expected to take this many times the limit is left out, with a note.
PATIENCE = 3.0


@dataclass
class Bench:
    """What every part needs.

    Attributes:
        model: what is measured.
        name: how it was asked for.
        repeats: runs of each measurement.
        limit: seconds after which a measurement is not repeated further.
        steps, batches: numbers of decoding steps, and of images at once.
        app: path of the page's program; empty leaves it out.
    """

    model: MaskGIT
    name: str
    repeats: int = 5
    limit: float = 20.0
    steps: Sequence[int] = (8, 12, 32)
    batches: Sequence[int] = (1, 4, 16)
    app: str = ""

    @cached_property
    def plain(self) -> nn.Module | None:
        """The plain form of the transformer; None where there is none."""
        try:
            return plain_transformer(self.model.transformer)
        except ValueError:
            return None

    @cached_property
    def pass_seconds(self) -> float:
        """About how long one pass of the transformer takes for one image."""
        return self._second_call(lambda: self.model.fast_transformer()(*self.inputs(1)))

    @cached_property
    def image_seconds(self) -> float:
        """About how long the tokenizer takes to decode one image."""
        return self._second_call(lambda: self.model.decode(self.finished(1)))

    @torch.inference_mode()
    def _second_call(self, function: Callable[[], Any]) -> float:
        function()
        return seconds(function)

    def inputs(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return wholly masked tokens int64 (B, N) and labels int64 (B,)."""
        cells = self.model.grid_size**2
        tokens = torch.full((batch, cells), self.model.mask_token_id, device=self.model.device)
        return tokens, torch.tensor(self.labels(batch), device=self.model.device)

    def finished(self, batch: int) -> Tensor:
        """Return random tokens int64 (B, h, w) without masked cells."""
        generator = torch.Generator().manual_seed(0)
        shape = (batch, self.model.grid_size, self.model.grid_size)
        return torch.randint(self.model.codebook_size, shape, generator=generator)

    def images(self, batch: int) -> Tensor:
        """Return float32 (B, 3, H, W) in [-1, 1]."""
        generator = torch.Generator().manual_seed(0)
        side = self.model.image_size
        return torch.rand(batch, 3, side, side, generator=generator) * 2 - 1

    def labels(self, batch: int) -> list[int]:
        """Return one label an image, the classes in turn."""
        return [number % len(self.model.classes) for number in range(batch)]

    def config(self, num_steps: int, *, guided: bool) -> SamplingConfig:
        """Return the settings of a run."""
        return SamplingConfig(num_steps=num_steps, guidance_scale=GUIDANCE_SCALE if guided else 1.0)

    def run_seconds(self, config: SamplingConfig, batch: int, images: int) -> float:
        """Return about how long a run takes that decodes `images` images."""
        passes = 1 if config.guidance_scale == 1 else 2
        return config.num_steps * passes * batch * self.pass_seconds + images * self.image_seconds

    def plain_frames(
        self,
        tokens: Tensor,
        labels: Sequence[int],
        config: SamplingConfig,
        decode: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Tensor]:
        """Return the plain loop's images of every step; image i uses seed i."""
        model = self.model
        steps = plain_steps(
            self.plain,
            tokens,
            torch.tensor(labels),
            config,
            codebook_size=model.codebook_size,
            null_label=model.null_label,
            seeds=range(len(tokens)),
        )
        return plain_images(steps, decode or model.tokenizer.decode_tokens, model.codebook_size)


def compare(
    bench: Bench,
    part: str,
    case: str,
    ours: Callable[[], Any],
    plain: Callable[[], Any] | None,
    *,
    unit: str = "s",
    scale: float = 1.0,
    expected: tuple[float, float] = (0.0, 0.0),
) -> Row:
    """Time a call and its plain counterpart in turn.

    Args:
        bench: repeats and limit.
        part, case, unit: of the row.
        ours, plain: without arguments; None where there is no counterpart.
        scale: seconds to unit.
        expected: about how many seconds the two take; far above the limit they are left out.
    """
    longest = PATIENCE * bench.limit
    if expected[0] > longest:
        return Row(part, case, unit, None, note=f"left out: about {expected[0]:.0f} s a run")
    note = ""
    if plain is not None and expected[1] > longest:
        plain, note = None, f"plain loop left out: about {expected[1]:.0f} s a run"
    functions = [ours] if plain is None else [ours, plain]
    values = [
        spread(times).times(scale) for times in in_turn(functions, bench.repeats, bench.limit)
    ]
    other = values[1] if plain is not None else None
    ratio = other.median / values[0].median if other is not None else None
    return Row(part, case, unit, values[0], other, ratio, note)
