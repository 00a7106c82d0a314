"""MaskGIT: images from a few parallel steps of masked token prediction (Chang et al. 2022)."""

from importlib import import_module

# As in `typing`, which takes long to load: a command that is starting has not yet said what a
# signal does (`__main__`).
TYPE_CHECKING = False

if TYPE_CHECKING:
    from maskgit_core.config import SamplingConfig, TokenizerConfig, TransformerConfig
    from maskgit_core.files import CheckpointError
    from maskgit_core.pipeline import MaskGIT
    from maskgit_core.training.settings import (
        TokenizerTrainConfig,
        TrainConfig,
        TransformerTrainConfig,
    )

# Where the names are; a part is loaded when it is asked for, torch with those that need it.
_HOMES = {
    "CheckpointError": "files",
    "MaskGIT": "pipeline",
    "SamplingConfig": "config",
    "TokenizerConfig": "config",
    "TokenizerTrainConfig": "training.settings",
    "TrainConfig": "training.settings",
    "TransformerConfig": "config",
    "TransformerTrainConfig": "training.settings",
}

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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
