"""The public door to `weights.convert`: published weights to ready modules and checkpoints."""

from maskgit_core.weights.convert import (
    convert_checkpoint,
    convert_tokenizer,
    convert_transformer,
)

__all__ = ["convert_checkpoint", "convert_tokenizer", "convert_transformer"]
