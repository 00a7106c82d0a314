"""Which number types the products of the networks can use on a device, by small trials.

Products in bfloat16 or int8 are two to three times as fast as in float32 on processors that have
instructions for them, and hundreds of times slower on others: only a trial tells.
"""

from __future__ import annotations

import time
import warnings
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.config import PRECISIONS, check_choice

PAYS = 0.8  # share of the time of float32 below which bfloat16 is worth its rounding
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

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map float (..., in) to float32 (..., out), and add skip, of the result's shape."""
        rows = x.flatten(0, -2).float()
        largest = rows.abs().amax(1, keepdim=True).clamp_min(SMALLEST)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, 1 / LEVELS, LEVELS + 1, self.packed
        )
        y = torch.addcmul(self.bias, y, largest).view(*x.shape[:-1], -1)
        y = y if self.gelu is None else F.gelu(y, approximate=self.gelu)
        return y if skip is None else skip + y


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
def bfloat16_pays(device: str) -> bool:
    """Whether products in bfloat16 are clearly faster than in float32 on a kind of device.

    On a CPU it is tried on one small convolution.
    """
    if device != "cpu":
        # A GPU without instructions for it computes it in float32, slowly.
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available():
        return False
    best = []
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.ones(1, 64, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
            weight = torch.ones(64, 64, 3, 3, dtype=dtype)
            times = []
            for _ in range(5):
                # Of this thread alone: a busy machine must not decide.
                begin = time.thread_time()
                F.conv2d(x, weight, padding=1)
                times.append(time.thread_time() - begin)
            best.append(min(times))
    return best[1] < PAYS * best[0]


def check_precision(precision: str) -> None:
    """Raise ValueError where a precision is unknown, or this processor does not have it."""
    check_choice("precision", precision, PRECISIONS)
    if precision == "int8" and not int8_works():
        raise ValueError(
            "precision must be float32 or bfloat16 on this processor, which has no products in "
            "int8; got 'int8'"
        )
