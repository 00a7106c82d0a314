"""What tensors of a file must be, checked before a network is built or takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from maskgit_core.config import to_dict
from maskgit_core.files import CheckpointError

LISTED_NAMES = 8
MAX_HEADER = 1 << 24  # bytes of a safetensors header
SOME_BLOCKS = 100  # are built in no time, whatever the file holds


def check_header(path: Path) -> None:
    """Raise CheckpointError where the header of a safetensors file would take long to read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError:
        return  # said by who reads it
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{path.name} is damaged or cut short: its header of {length} bytes is longer than "
            "any weights need"
        )


def check_blocks(config: Any, count: int, source: str) -> None:
    """Check that a network's blocks are not more than the tensors that are there for it.

    A few digits in a configuration, or a name with a large number, can ask for millions of blocks.

    Raises:
        CheckpointError: there are more.
    """
    blocks = levels = len(getattr(config, "widths", ()))
    for name, value in to_dict(config).items():
        if name == "depth" or name.endswith("blocks"):
            blocks += sum(value) if isinstance(value, list) else value * (levels or 1)
    if blocks > count + SOME_BLOCKS:  # of few, the missing names are a better answer
        raise CheckpointError(
            f"{source} does not fit its configuration; it has {count} tensors for {blocks} blocks"
        )


def check_floats(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Check that weights are floats and finite.

    Raises:
        CheckpointError: naming the first that is not.
    """
    for name, _ in module.named_parameters():
        check_weight(name, tensors[name], source)


def check_weight(name: str, tensor: Tensor, source: str) -> None:
    """Raise CheckpointError unless a tensor of a file is of floats, and finite (if not on meta)."""
    if not tensor.is_floating_point():
        raise CheckpointError(f"{source}: {name} must be float, is {tensor.dtype}")
    if not tensor.is_meta and not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{source} is damaged: {name} holds nan or infinity")


def to_float32(tensor: Tensor) -> Tensor:
    """Return floats as float32 and other tensors as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def check_names(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen names.
    """
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    misshapen = [
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    parts = []
    for word, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", misshapen),
    ):
        if names:
            more = f" and {len(names) - LISTED_NAMES} more" if len(names) > LISTED_NAMES else ""
            parts.append(f"{len(names)} {word}: {', '.join(names[:LISTED_NAMES])}{more}")
    if parts:
        raise CheckpointError(f"{source} does not fit its configuration; {'; '.join(parts)}")
