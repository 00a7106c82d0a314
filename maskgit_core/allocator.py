"""Freed memory is kept for the next large tensor, where the C library is glibc.

By default glibc gives every large block back to the system when it is freed and faults it in
again, page by page, when the next tensor of that size is made: thousands of faults a step. Above
the bounds below it still does, so that the weights of a model that is dropped are given back.
"""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT_BYTES = 2**28  # free memory that a heap keeps
LARGEST_BLOCK = 2**25  # of one tensor; more than glibc takes is refused


def keep_freed_memory() -> bool:
    """Tell the C library of this process to keep freed memory; False where it does not listen.

    For programs (the page, the commands), not for imports: it changes the whole process.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (M_MMAP_THRESHOLD, LARGEST_BLOCK),
        (M_TRIM_THRESHOLD, KEPT_BYTES),
        # The heaps of other threads are given back whenever they are empty, whatever the bound.
        (M_ARENA_MAX, 1),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)
