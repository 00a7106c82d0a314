"""What a visitor wants computed: one frozen request, complete once it is parsed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from maskgit_core.config import SamplingConfig
from maskgit_core.editing.plan import EditPlan


@dataclass(frozen=True)
class Request:
    """Grids to fill, and what the page shows of them before the first step.

    Args:
        kind: `generate`, `edit`, `redo`, `compare` or `tour`.
        model: name of the model that it was made for.
        mask_token_id: K of that model.
        tokens: int64 (B, h, w), K where a cell is decided.
        labels: class index of each image, None where left open.
        seeds: one an image.
        configs: how to decode: one for all images, or one for each, which are then decoded in step.
        captions: one line under each image.
        recipe: settings that make the same images again; None where no settings do.
        base: data URL of the photo under an edit.
        start: data URL of the images before the first step, on one sheet.
        plan: of an edit: the photo that the result is put into.
        tokens_per_cell: how many tokens of a cell the model decides on their own. A cell is shown
            once all of them are known.
    """

    kind: str
    model: str
    mask_token_id: int
    tokens: Tensor = field(compare=False, repr=False)
    labels: tuple[int | None, ...]
    seeds: tuple[int, ...]
    configs: tuple[SamplingConfig, ...]
    captions: tuple[str, ...]
    recipe: dict[str, Any] | None = None
    base: str | None = field(default=None, repr=False)
    start: str | None = field(default=None, repr=False)
    plan: EditPlan | None = field(default=None, compare=False, repr=False)
    tokens_per_cell: int = 1

    @property
    def num_images(self) -> int:
        """B."""
        return len(self.labels)

    @property
    def num_unknown(self) -> int:
        """Cells that are decided in the image with the most of them."""
        return int((self.tokens == self.mask_token_id).sum(dim=(1, 2)).max())

    @property
    def num_steps(self) -> tuple[int, ...]:
        """Steps that each configuration takes."""
        unknown = self.num_unknown * self.tokens_per_cell
        return tuple(max(1, min(config.num_steps, unknown)) for config in self.configs)

    @property
    def together(self) -> Hashable | None:
        """Requests of which this is equal may share a batch; None is decoded alone."""
        return (self.model, self.configs[0]) if len(self.configs) == 1 else None
