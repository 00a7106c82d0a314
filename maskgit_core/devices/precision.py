"""Which number types the products of the networks can use on a device, by small trials.

Products in bfloat16 or int8 are two to three times as fast as in float32 on processors that have
instructions for them, and hundreds of times slower on others: only a trial tells.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.config import PRECISIONS, check_choice

BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
LEVELS = 127  # of int8 on either side of zero
SMALLEST = 1e-12
TRIAL_ERROR = 0.05


class Int8Linear(nn.Module):
    """A linear layer whose product is in int8, and a GELU behind it where asked.

    Weights are scaled to int8 by output channel, once; inputs by row, at each call, so that a
    row's result does not depend on the others beside it. Sums, scales and bias are float32. (The
    vector-wise scheme of LLM.int8, Dettmers et al. 2022, without its float16 outliers.)

    Args:
        weight, bias: float32 (out, in) and (out,) or None, on the CPU.
        gelu: None, or the `approximate` of the GELU, `none` or `tanh`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: str | None = None) -> None:
        super().__init__()
        weight = weight.detach().float()
        scales = (weight.abs().amax(1) / LEVELS).clamp_min(SMALLEST)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():  # torch announces a successor that it does not hold yet
            warnings.simplefilter("ignore")
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(rounded, None)
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()
        self.gelu = gelu

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., in) to float32 (..., out), without a gradient."""
        rows = x.flatten(0, -2).float()
        # Two passes that write nothing, in place of a block of absolute values.
        largest = torch.maximum(rows.amax(1, keepdim=True), rows.amin(1, keepdim=True).neg_())
        largest = largest.clamp_min_(SMALLEST)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, 1 / LEVELS, LEVELS + 1, self.packed
        )
        # In place: passes over memory are half of the work here, and a new block each costs more.
        y = torch.addcmul(self.bias, y, largest, out=y).view(*x.shape[:-1], -1)
        return y if self.gelu is None else torch.ops.aten.gelu_(y, approximate=self.gelu)


@cache
def int8_works() -> bool:
    """Whether this build of torch and this processor have products in int8 without overflow."""
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(*shape, generator=generator) for shape in ((8, 64), (4, 64)))
    # Largest values everywhere: some processors add pairs of products in 16 bits.
    weight[0], x[0] = 1.0, 1.0
    try:
        result = Int8Linear(weight, None)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = F.linear(x, weight)
    return bool((result - wanted).abs().max() < TRIAL_ERROR * wanted.abs().max())


@cache
def bfloat16_works() -> bool:
    """Whether this build of torch and this processor take a layer's weights in bfloat16.

    Processors without instructions for it may, by turning weights into float32; those without
    AVX-512 do not.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        torch.ops.mkldnn._reorder_linear_weight(torch.zeros(8, 8, dtype=torch.bfloat16), None)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True


def quick_precision() -> str:
    """Return int8 on a processor that has such products and no GPU beside it, else float32."""
    return "int8" if int8_works() and not torch.cuda.is_available() else "float32"


def bfloat16_pays(device: str) -> bool:
    """Whether a kind of device has instructions for products in bfloat16.

    Without them they are emulated, hundreds of times slower on some CPUs.
    """
    if device == "cpu":
        able = torch.cpu.get_capabilities()
        return torch.backends.mkldnn.is_available() and any(map(able.get, BFLOAT16_INSTRUCTIONS))
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def check_precision(precision: str) -> None:
    """Raise ValueError where a precision is unknown, or this processor does not have it."""
    check_choice("precision", precision, PRECISIONS)
    works: dict[str, Callable[[], bool]] = {
        "float32": lambda: True,
        # A model that is made on the CPU may go to a GPU from there.
        "bfloat16": lambda: bfloat16_works() or torch.cuda.is_available(),
        "int8": int8_works,
    }
    if not works[precision]():
        able = " or ".join(name for name in PRECISIONS if works[name]())
        raise ValueError(
            f"precision must be {able} on this processor, which has no products in {precision}; "
            f"got {precision!r}"
        )
