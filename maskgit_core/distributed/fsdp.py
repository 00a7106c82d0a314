"""A network whose weights, gradients, EMA and optimizer state are sharded among the ranks.

PyTorch's `fully_shard` (FSDP2) keeps one slice of every parameter on each rank and gathers a block
only while it computes (ZeRO stage 3, Rajbhandari et al. 2020). What a step learns is the same.

States are written by all ranks together with `torch.distributed.checkpoint`, each its own slices,
and read back on any number of ranks, one included; in safetensors files, since the usual form of
that package is unpickled when it is read.
"""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.fsdp import fully_shard

from maskgit_core.distributed import group
from maskgit_core.files import CheckpointError


def shard_(model: nn.Module, device: torch.device) -> None:
    """Shard the parameters of a transformer among the ranks, block by block, in place.

    Raises:
        ValueError: a network without blocks.
    """
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        raise ValueError(f"shard must be none for {type(model).__name__}, which has no blocks")
    mesh = torch.distributed.init_device_mesh(device.type, (group.size(),))
    for block in blocks:
        # Called by the network, before the block: it gathers its own weights.
        if isinstance(modulation := getattr(block, "modulation", None), nn.Module):
            fully_shard(modulation, mesh=mesh)
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@torch.no_grad()
def gathered(module: nn.Module, shape: nn.Module) -> nn.Module | None:
    """Return a whole copy of a network on the first rank, None on the others; all call this.

    Args:
        module: sharded.
        shape: the same network before it was sharded, on the meta device.
    """
    values = {}
    for name, tensor in module.state_dict().items():
        value = group.whole(tensor)  # one after another: only the first rank keeps them
        if group.is_first():
            values[name] = value
    if not group.is_first():
        return None
    built = copy.deepcopy(shape)
    built.load_state_dict(values, assign=True)
    return built.requires_grad_(False)


def save_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors into a new folder; all ranks call this.

    Raises:
        CheckpointError: a rank cannot write; nothing but this folder is touched.
    """
    try:
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        dcp.save(dict(tensors), storage_writer=writer)
    except (CheckpointException, OSError) as error:
        if group.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(f"cannot write {folder}: {_cause(error)}") from error


def load_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill named tensors, whole or sharded among any number of ranks; all ranks call this.

    Raises:
        CheckpointError: files are missing or damaged, or hold other names or shapes.
    """
    try:
        reader = HuggingFaceStorageReader(str(folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it should be
            dcp.load(dict(tensors), storage_reader=reader, no_dist=group.size() == 1)
    except (CheckpointException, OSError, RuntimeError, ValueError, LookupError) as error:
        raise CheckpointError(f"{folder} cannot be resumed: {_cause(error)}") from error


def names_in(folder: Path) -> list[str]:
    """Return the names of the tensors that `save_shards` wrote.

    Raises:
        CheckpointError: the folder or a file of it is missing or damaged.
    """
    try:
        return list(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)
    except (OSError, RuntimeError, ValueError, LookupError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be resumed: {error}") from error


def _cause(error: BaseException) -> str:
    """Return what went wrong, without the trace that the client adds for every rank."""
    failures = getattr(error, "failures", None)
    first = next(iter(failures.values()))[0] if failures else error
    return str(first).strip().partition("\n")[0]
