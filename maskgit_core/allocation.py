"""Keep freed memory for the next training step instead of giving it back to the system.

A step on the CPU fills hundreds of megabytes of activations and frees them at its end. glibc hands
the top of its heap back each time, and the system then clears every page anew: up to a third of a
step, in calls that no profiler of the network shows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Names and numbers of malloc.h (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_TRIM = 2**31 - 1
# What glibc itself arrives at after it has seen large blocks; to set one of the two stops that.
USUAL_TRIM = 64 * 2**20
USUAL_MMAP = 32 * 2**20


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep what is freed inside; does nothing where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        yield
        return
    mallopt(M_MMAP_THRESHOLD, USUAL_MMAP)
    mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM)
    try:
        yield
    finally:
        mallopt(M_TRIM_THRESHOLD, USUAL_TRIM)
