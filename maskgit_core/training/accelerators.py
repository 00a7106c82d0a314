"""What `plan` knows of devices: memory, peak speed, and which share of it training reaches."""

from __future__ import annotations

import difflib
import os
import time
from dataclasses import dataclass

GIGA = 1e9
PROBE_SIDE = 1024
PROBE_SECONDS = 0.5
GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One accelerator, or the CPU of this machine.

    Attributes:
        name: as given on the command line.
        memory: bytes.
        peak: FLOP/s of dense matrix products in the precision that training uses there.
        precision: that precision, `bf16`, `fp16` or `fp32`.
        share: of the peak that training reaches, (tokenizer, transformer).
        measured: whether the shares were measured on such a device, or are assumed.
    """

    name: str
    memory: float
    peak: float
    precision: str
    share: tuple[float, float]
    measured: bool = False


# Convolutions of few channels use far less of a GPU than the large products of a transformer.
# Measured with the preset scenes-flowers-s on one H100, without torch.compile: 1,200 and 7,500
# images/s. Of a lower peak more is reached, how much is assumed and told as such.
HOPPER_SHARE = (0.029, 0.135)
ASSUMED_SHARE = (0.05, 0.20)
# From training logs of the preset scenes-flowers-xs on two shared cores (AMD EPYC, Zen 4): medians
# of 8.8 and 14.5 images/s, where matrix products reach 76 GFLOP in a second of one core.
CPU_SHARE = (0.72, 0.73)


def _gpu(
    name: str,
    gigabytes: float,
    tera: float,
    precision: str = "bf16",
    share: tuple[float, float] = ASSUMED_SHARE,
    *,
    measured: bool = False,
) -> Device:
    return Device(name, gigabytes * GIGA, tera * 1e12, precision, share, measured)


# Memory and dense peak (no sparsity) from the makers' data sheets.
GPUS: dict[str, Device] = {
    device.name: device
    for device in (
        _gpu("t4", 16, 65, "fp16"),
        _gpu("l4", 24, 121),
        _gpu("rtx-4090", 24, 165),
        _gpu("a100-40gb", 40, 312),
        _gpu("a100", 80, 312),
        _gpu("h100", 80, 989, share=HOPPER_SHARE, measured=True),
        _gpu("h200", 141, 989, share=HOPPER_SHARE),
    )
}
DEVICE_NAMES = ("cpu", *GPUS)


def find_device(name: str) -> Device:
    """Return a device by name; `cpu` measures this machine for half a second.

    Raises:
        ValueError: an unknown name; the nearest is given.
    """
    if name == "cpu":
        return Device("cpu", total_memory(), matrix_speed(), "fp32", CPU_SHARE, measured=True)
    if name not in GPUS:
        near = difflib.get_close_matches(name, DEVICE_NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"device must be one of {', '.join(DEVICE_NAMES)}; got {name!r}{hint}")
    return GPUS[name]


def total_memory() -> float:
    """Return the bytes of this machine's main memory."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def matrix_speed(seconds: float = PROBE_SECONDS) -> float:
    """Return the float32 FLOP/s of large matrix products here and now, other work included."""
    import torch

    left = torch.rand(PROBE_SIDE, PROBE_SIDE)
    torch.mm(left, left)
    started, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - started < seconds:
        torch.mm(left, left)
        count += 1
    return count * 2 * PROBE_SIDE**3 / (time.perf_counter() - started)
