"""bfloat16 as an option, and freed memory that a process keeps."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

import tiny
from maskgit_core import MaskGIT, SamplingConfig
from maskgit_core.checkpoint import Checkpoint
from maskgit_core.packing import pack, packing_works


def model_of(precision: str, **changes) -> MaskGIT:
    checkpoint = Checkpoint(tiny.tokenizer(), tiny.transformer(**changes), list(tiny.CLASSES))
    return MaskGIT(checkpoint, precision=precision)


@pytest.mark.skipif(not packing_works(), reason="this processor has no packed weights")
@pytest.mark.parametrize("kind", ["class_token", "adaln"])
@torch.no_grad()
def test_products_in_bfloat16_are_close_to_float32(kind):
    network = tiny.transformer(kind=kind)
    tokens, labels = torch.arange(32).view(2, 16), torch.tensor([0, 1])
    exact = network(tokens, labels)
    rounded = pack(network, torch.bfloat16)(tokens, labels)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()


def test_a_model_in_bfloat16_decodes_and_repeats_itself():
    model, config = model_of("bfloat16"), SamplingConfig(num_steps=4)
    result = model.generate(["sea", None], config, seed=1)
    assert result.images.dtype == torch.float32 and int(result.tokens.max()) < 32
    assert torch.equal(result.tokens, model.generate(["sea", None], config, seed=1).tokens)


def test_float32_is_the_default_and_other_words_are_refused():
    assert tiny.model().precision == "float32"
    with pytest.raises(ValueError, match="^precision must be one of float32, bfloat16; got 'half'"):
        model_of("half")


FAULTS = """
import ctypes, resource, sys, threading
from maskgit_core.allocation import keep_freed_memory
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
