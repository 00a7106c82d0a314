"""MaskGIT: images from a few parallel steps of masked token prediction (Chang et al. 2022)."""

from maskgit_core.config import SamplingConfig, TokenizerConfig, TrainConfig, TransformerConfig

__all__ = [
    "CheckpointError",
    "MaskGIT",
    "SamplingConfig",
    "TokenizerConfig",
    "TrainConfig",
    "TransformerConfig",
]


def __getattr__(name: str) -> object:
    """Load the parts that need torch only when they are asked for."""
    if name == "MaskGIT":
        from maskgit_core.pipeline import MaskGIT

        return MaskGIT
    if name == "CheckpointError":
        from maskgit_core.files import CheckpointError

        return CheckpointError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
