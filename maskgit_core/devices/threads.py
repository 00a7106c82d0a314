"""Several computations at once, each on one thread: no core waits for another at every product."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
# A process that was forked has none of the threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def side_by_side(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what the calls return, in their order; computed together, without gradients.

    As many run at once as torch has threads here, and each has one. What a call raises is raised.
    A single call runs in this thread with all of them.
    """
    threads = torch.get_num_threads()
    together = len(calls) > 1 and threads > 1
    return list((_pool(threads).map if together else map)(_without_gradients, calls))


def _without_gradients(call: Callable[[], T]) -> T:
    with torch.no_grad():
        return call()


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            pool = ThreadPoolExecutor(threads, "part")
            started = threading.Barrier(threads + 1)
            for _ in range(threads):
                pool.submit(_start, started)
            started.wait()
            # Torch's number is that of the thread and of all threads that begin later.
            torch.set_num_threads(threads)
            _pools[threads] = pool
        return _pools[threads]


def _start(started: threading.Barrier) -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes over the number of all when it is first asked
    started.wait()
