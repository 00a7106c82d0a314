"""Keep freed memory for the next large tensor instead of giving it back to the system.

A decoding or training step on the CPU fills large blocks and frees them at its end. glibc hands
them back each time, and the system then clears every page anew: thousands of faults a step, in
training up to a third of its time, in calls that no profiler of the network shows.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# Names and numbers of malloc.h (mallopt(3)).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGEST_TRIM = 2**31 - 1
KEPT_BYTES = 2**28  # free memory that a heap keeps
# Of one block. Larger ones, weights for instance, are given back; more than this glibc refuses.
LARGEST_BLOCK = 2**25


def _done(function: str, *arguments: int) -> bool:
    """Call one of glibc's functions that return 1 where they did something."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        return getattr(ctypes.CDLL(None), function)(*arguments) == 1
    except (OSError, AttributeError, TypeError):
        return False


def _set(*settings: tuple[int, int]) -> bool:
    return all(_done("mallopt", *setting) for setting in settings)


def keep_freed_memory() -> bool:
    """Tell the C library of this process to keep freed memory; False where it does not listen.

    For programs (the page, the commands), not for imports: it changes the whole process.
    """
    return _set(
        (M_MMAP_THRESHOLD, LARGEST_BLOCK),
        (M_TRIM_THRESHOLD, KEPT_BYTES),
        # The heaps of other threads are given back whenever they are empty, whatever the bound.
        (M_ARENA_MAX, 1),
    )


def give_back_freed_memory() -> bool:
    """Give the system what is free in this process's heap now; False where nothing was.

    Between large pieces of work: blocks of many sizes leave holes, and without this a heap grows
    for minutes while what is used in it stays the same.
    """
    return _done("malloc_trim", 0)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep all that is freed inside, for training; does nothing where it cannot."""
    _set((M_MMAP_THRESHOLD, LARGEST_BLOCK), (M_TRIM_THRESHOLD, LARGEST_TRIM))
    try:
        yield
    finally:
        _set((M_TRIM_THRESHOLD, KEPT_BYTES))
