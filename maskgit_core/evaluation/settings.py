"""What an evaluation draws and compares."""

from __future__ import annotations

from dataclasses import dataclass

from maskgit_core.config import MAX_SEED, SamplingConfig, check_range

MAX_SAMPLES = 1_000_000


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation draws and compares.

    Args:
        num_samples: how many images the model draws; 0 measures the tokenizer only.
        sampling: decoding settings; None takes the model's own.
        seed: of the samples, image i uses seed + i, and of the draw of training photos.
        neighbours: k of precision and recall.
        batch_size: samples drawn at once.
    """

    num_samples: int = 5000
    sampling: SamplingConfig | None = None
    seed: int = 0
    neighbours: int = 3
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_range("neighbours", self.neighbours, 1, 1000, whole=True)
        check_range("num_samples", self.num_samples, 0, MAX_SAMPLES, whole=True)
        if 0 < self.num_samples < self.least:
            raise ValueError(
                f"num_samples must be 0 (tokenizer only) or at least {self.least}, the number "
                f"that precision and recall need; got {self.num_samples}"
            )
        check_range("seed", self.seed, 0, MAX_SEED - self.num_samples, whole=True)
        check_range("batch_size", self.batch_size, 1, whole=True)

    @property
    def least(self) -> int:
        """Photos, or samples, that precision and recall need."""
        return self.neighbours + 1
