"""Which device a name means, and whether it is there."""

from __future__ import annotations

import torch


def find_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:1` and so on, or `mps`; `auto` is the CPU.

    Raises:
        ValueError: no such name, or a device that this machine does not have.
    """
    allowed = "device must be auto, cpu, cuda, cuda:N or mps"
    try:
        device = torch.device("cpu" if name == "auto" else name)
    except (RuntimeError, TypeError):
        raise ValueError(f"{allowed}; got {name!r}") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"device {name} is not there: this machine has {count} CUDA devices")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("device mps is not there: this machine has no Apple GPU")
    elif device.type != "cpu":
        raise ValueError(f"{allowed}; got {name!r}")
    return device
