"""MaskGIT: images from a few parallel steps of masked token prediction (Chang et al. 2022)."""

from maskgit_core.config import SamplingConfig, TokenizerConfig, TransformerConfig
from maskgit_core.training.settings import (
    TokenizerTrainConfig,
    TrainConfig,
    TransformerTrainConfig,
)

__all__ = [
    "CheckpointError",
    "MaskGIT",
    "SamplingConfig",
    "TokenizerConfig",
    "TokenizerTrainConfig",
    "TrainConfig",
    "TransformerConfig",
    "TransformerTrainConfig",
]


def __getattr__(name: str) -> object:
    """Load the parts that need torch only when they are asked for."""
    if name == "MaskGIT":
        from maskgit_core.pipeline import MaskGIT

        return MaskGIT
    if name == "CheckpointError":
        from maskgit_core.weights.checkpoint import CheckpointError

        return CheckpointError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
