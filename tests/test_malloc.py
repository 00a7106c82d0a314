"""What the C library does with freed memory when it is told to."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from maskgit_core.devices import malloc

FAULTS = """
import ctypes, resource, sys, threading
from maskgit_core.devices.malloc import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("refused")
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use():
    blocks = [libc.malloc(2**23) for _ in range(10)]
    for block in blocks:
        ctypes.memset(block, 1, 2**23)
    for block in blocks:
        libc.free(block)
def work():
    use(); use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_freed_memory_is_kept():
    result = subprocess.run(
        [sys.executable, "-c", FAULTS, "keep"], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 2000  # of three times ten blocks of 2,048 pages


HOLES = """
from ctypes import CDLL, c_size_t, c_void_p, memset
from resource import getpagesize
from maskgit_core.devices import malloc
malloc.keep_freed_memory()
libc = CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = c_void_p, [c_size_t]
libc.free.argtypes = [c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * getpagesize() / 2**20
large, small = [], []
for _ in range(64):
    large.append(libc.malloc(2**20))
    small.append(libc.malloc(100))  # stays, so that the heap cannot end before it
    memset(large[-1], 1, 2**20)
for block in large:
    libc.free(block)
kept = resident()
assert malloc.give_back_freed_memory()
print(kept - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_holes_in_the_heap_are_given_back_when_asked():
    result = subprocess.run(
        [sys.executable, "-c", HOLES], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) > 50  # of 64 MB


def test_other_c_libraries_are_not_asked(monkeypatch):
    monkeypatch.setattr(malloc.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: pytest.fail("asked"))
    assert not malloc.give_back_freed_memory()
