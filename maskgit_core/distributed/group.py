"""Several processes that train one network: who is who, sums over them, and the loss of one.

`torchrun` starts the processes and names them in the environment; without it every function here
is that of a single process, at no cost. PyTorch keeps the process group, so nothing is kept here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

# How long a rank waits for another one that is alive but silent; a dead one is noticed at once.
SILENCE = timedelta(minutes=30)
# Reading a large folder of photos for the first time may take one rank hours.
PATIENCE = timedelta(days=7)
_SIGNS = ("gloo", "nccl", "connection", "peer", "socket", "timed out")

T = TypeVar("T")


class RankLostError(ConnectionError):
    """Another process of the run has ended or does not answer."""


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _several() else 0


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _several() else 1


def is_first() -> bool:
    """Whether this process is the one that writes logs, pictures and weights."""
    return rank() == 0


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def process_group(device: torch.device, silence: timedelta = SILENCE) -> Iterator[None]:
    """Join the processes that torchrun started, and leave them at the end.

    Does nothing for a process of its own, or inside another such context.

    Args:
        device: where this process trains; NCCL carries what is on a GPU, gloo all else.
        silence: how long to wait for a rank that does not answer.

    Raises:
        RankLostError: another rank did not come, or has ended.
    """
    if _several() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with lost_ranks_named():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=silence)
        yield
        # Not after an error: the others may never come, and the end of the process says enough.
        dist.barrier()
        dist.destroy_process_group()


@contextmanager
def lost_ranks_named() -> Iterator[None]:
    """Turn the errors of a broken connection into a RankLostError; leave all others alone."""
    try:
        yield
    except RankLostError:
        raise
    except RuntimeError as error:
        text = str(error).lower()
        if not isinstance(error, dist.DistError) and not (
            _several() and any(sign in text for sign in _SIGNS)
        ):
            raise
        raise RankLostError(
            "another process of the run has ended or does not answer; the same command goes on "
            "from the last saved state"
        ) from error


def local_device(name: str = "auto") -> torch.device:
    """Return where this process trains: its own GPU where there is one, else the CPU.

    Args:
        name: `auto`, `cpu` or `cuda`.

    Raises:
        ValueError: another name, or `cuda` without a GPU for this process.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be one of auto, cpu, cuda; got {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"device cuda needs one GPU a process; process {index} found {count}")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def sum_(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all ranks; returns it."""
    if size() > 1:
        dist.all_reduce(tensor)
    return tensor


def of_first(value: float) -> float:
    """Return a number as the first rank has it; all ranks call this."""
    held = torch.tensor([value], dtype=torch.float64)
    broadcast_([held])
    return held.item()


def wait() -> None:
    """Wait until all ranks are here."""
    if size() > 1:
        dist.barrier()


@torch.no_grad()
def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by those of the first rank."""
    if size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's slice, as a view; a tensor that is not sharded is returned as it is."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return the tensor put together, on every rank; where it is sharded all of them call this."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


def slice_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this rank's slice of a tensor that every rank has whole, sharded as `like` is."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    sharded = cast(DTensor, like)
    mesh = sharded.device_mesh
    held = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return held.redistribute(placements=sharded.placements).to_local()


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is sharded, a DTensor."""
    return hasattr(tensor, "device_mesh")  # its class takes long to import


def same_everywhere(value: int) -> bool:
    """Whether all ranks have the same whole number."""
    low_high = torch.tensor([value, -value])
    if size() > 1:
        dist.all_reduce(low_high, op=dist.ReduceOp.MIN)
    return low_high[0].item() == -low_high[1].item()


@contextmanager
def patience() -> Iterator[None]:
    """Let ranks work for hours inside; all of them leave together."""
    if size() == 1:
        yield
        return
    with lost_ranks_named():
        # Gloo, whatever the device: its ranks notice at once when one of them has ended.
        group = dist.new_group(backend="gloo", timeout=PATIENCE)
        yield
        dist.barrier(group)
        dist.destroy_process_group(group)


def first_alone(work: Callable[[], T]) -> T:
    """Return work() of every rank, where the others begin when the first has finished.

    What the first rank leaves on the disk, the others find.
    """
    done: list[T] = []
    with patience():
        if is_first():
            done.append(work())
    return done[0] if done else work()
