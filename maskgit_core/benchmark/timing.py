"""What the parts of `benchmark` share: what is measured, with which inputs, and the stopwatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.benchmark import Measurement, TaskSpec, Timer

from maskgit_core.config import SamplingConfig
from maskgit_core.pipeline import MaskGIT

GUIDANCE_SCALE = 3.0


@dataclass(frozen=True)
class Case:
    """One thing to measure, a cell of a table.

    Attributes:
        part: the table, a name of `run.PARTS`.
        row, column: the cell.
        measure: takes the time.
    """

    part: str
    row: str
    column: str
    measure: Callable[[Case], Measurement]


@dataclass(frozen=True)
class Setup:
    """What every part works with.

    Attributes:
        model: what is measured.
        name: how it was asked for.
        seconds: how long a case is repeated; every case has one call before, and one at least.
        steps, batches: numbers of decoding steps, and of images at once.
        app: path of the page's program; empty leaves it out.
    """

    model: MaskGIT
    name: str
    seconds: float = 2.0
    steps: Sequence[int] = (12,)
    batches: Sequence[int] = (1, 4)
    app: str = ""

    def timed(self, part: str, row: str, column: str, call: Callable[[], Any]) -> Case:
        """Return a case that is one call in this process."""

        def measure(case: Case) -> Measurement:
            with torch.inference_mode():
                return Timer(
                    "call()",
                    globals={"call": call},
                    label=part,
                    sub_label=row,
                    description=column,
                    num_threads=torch.get_num_threads(),
                ).blocked_autorange(min_run_time=self.seconds)

        return Case(part, row, column, measure)

    def masked(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return wholly masked tokens int64 (B, N), or (B, P) of cells with several tokens, and
        labels int64 (B,).
        """
        model = self.model
        shape = (batch, model.grid_size**2 * model.tokens_per_cell)
        tokens = torch.full(shape, int(model.transformer.mask_token_id), device=model.device)
        return tokens, torch.tensor(self.labels(batch), device=model.device)

    def labels(self, batch: int) -> list[int]:
        """Return one label an image, the classes in turn."""
        return [number % len(self.model.classes) for number in range(batch)]

    def config(self, num_steps: int) -> SamplingConfig:
        """Return the settings of a run, with guidance where the model has it."""
        guided = self.model.null_label is not None
        return SamplingConfig(num_steps=num_steps, guidance_scale=GUIDANCE_SCALE if guided else 1.0)


def measured(case: Case, times: list[float]) -> Measurement:
    """Return times in seconds that were taken elsewhere, in the place of a case."""
    task = TaskSpec(
        stmt=case.row,
        setup="",
        label=case.part,
        sub_label=case.row,
        description=case.column,
        num_threads=torch.get_num_threads(),
    )
    return Measurement(1, times, task)
