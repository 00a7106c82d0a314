"""Small work of the model beside the queue, such as encoding a photo: in one thread for everybody.

Torch gives every thread that computes helpers and buffers of its own, some megabytes, and keeps
them as long as the thread lives. The page answers in dozens of threads, and their buffers, all over
the heap, also keep it from using freed blocks again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_one_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the call returns, or raise what it raises; calls run one after another."""
    return _thread().submit(call, *args, **kwargs).result()


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "beside the queue")


# A process that was forked has none of the threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.cache_clear)
