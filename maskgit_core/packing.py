"""Networks with weights laid out for the processor: the same numbers up to rounding, sooner.

A product of a few hundred rows spends a part of its time on bringing the weights into the order
in which the processor reads them. oneDNN can do that once, and then adds bias and GELU while a
result is still in a register; on a CPU with AVX-512 a pass takes about a fifth less time. The
copy is for decoding only: it has no gradients and does not follow later changes of the weights.
"""

from __future__ import annotations

import copy
import time
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.layers import GeluMLP, SelfAttention, SwiGLU, rms_norm, take

TRIAL_TOLERANCE = 1e-4
PAYS = 0.8  # share of the time of float32 below which bfloat16 is worth its rounding


class PackedLinear(nn.Module):
    """A linear layer with packed weights, and a GELU behind it where asked.

    Args:
        weight, bias: float32 (out, in) and (out,) or None, on the CPU.
        gelu: None, or the `approximate` of the GELU, `none` or `tanh`.
        dtype: of the product, float32 or bfloat16; sums are float32 within.
        result: of the output.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        gelu: str | None = None,
        dtype: torch.dtype = torch.float32,
        result: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weight = weight.detach().to(dtype).contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = None if bias is None else bias.detach().to(dtype).contiguous()
        self.activation = ("none", "") if gelu is None else ("gelu", gelu)
        self.dtype, self.result = dtype, result

    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., in) to `result` (..., out)."""
        name, algorithm = self.activation
        x = x.to(self.dtype)
        y = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, name, [], algorithm)
        return y.to(self.result)


class PackedAttention(nn.Module):
    """`SelfAttention` with packed weights.

    Args:
        source: what to copy.
        split: keep q apart from k and v, for a layer that is asked about some positions only.
        dtype: of the products with weights.
    """

    def __init__(self, source: SelfAttention, *, split: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_heads, self.qk_norm = source.num_heads, source.qk_norm
        weight, bias, inner = source.qkv.weight, source.qkv.bias, source.out.in_features
        sizes = (inner, 2 * inner) if split else (3 * inner,)
        biases = (None,) * len(sizes) if bias is None else bias.split(sizes)
        self.projections = nn.ModuleList(
            PackedLinear(*pair, dtype=dtype)
            for pair in zip(weight.split(sizes), biases, strict=True)
        )
        self.out = PackedLinear(source.out.weight, source.out.bias, dtype=dtype)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Map float (B, N, D) to float (B, N, D), or (B, M, D) at positions int64 (B, M)."""
        if len(self.projections) == 2:
            q = self.projections[0](x if at is None else take(x, at))
            k, v = self.projections[1](x).chunk(2, dim=-1)
        else:
            q, k, v = self.projections[0](x).chunk(3, dim=-1)
            q = q if at is None else take(q, at)
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        split = (self.num_heads, -1)
        q, k, v = (part.unflatten(-1, split).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


def packing_works() -> bool:
    """Whether this build of torch and this processor have packed weights, by a small trial."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((3, 8), (5, 8), (5,)))
    try:
        result = PackedLinear(weight, bias, gelu="none")(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = F.gelu(F.linear(x, weight, bias))
    return torch.allclose(result, wanted, rtol=TRIAL_TOLERANCE, atol=TRIAL_TOLERANCE)


@cache
def bfloat16_pays(device: str) -> bool:
    """Whether products in bfloat16 are clearly faster than in float32 on a kind of device.

    Some processors have no instructions for it and are hundreds of times slower: it is tried, on
    one small convolution.
    """
    if device != "cpu":
        return device == "cuda" and torch.cuda.is_bf16_supported()
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


def pack(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a copy of a transformer with packed weights, or the network itself.

    With dtype bfloat16 the packed products are rounded to it; all else stays float32.

    Layers of the blocks, the stem and the head are packed; everything else is shared with the
    network. Where it is not float32 on the CPU, or packing does not work, it is returned as it is.
    """
    parameters = list(network.parameters())
    fitting = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in parameters)
    if not parameters or not fitting or not packing_works():
        return network
    with torch.no_grad():
        packed = copy.deepcopy(network, {id(parameter): parameter for parameter in parameters})
        blocks = getattr(packed, "blocks", None)
        last = blocks[-1] if blocks else None
        for module in list(packed.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, SelfAttention):
                    module.add_module(
                        name, PackedAttention(child, split=module is last, dtype=dtype)
                    )
                elif isinstance(child, GeluMLP):
                    up = PackedLinear(
                        child.up.weight,
                        child.up.bias,
                        gelu=child.approximate,
                        dtype=dtype,
                        result=dtype,
                    )
                    down = PackedLinear(child.down.weight, child.down.bias, dtype=dtype)
                    module.add_module(name, nn.Sequential(up, down))
                elif isinstance(child, nn.Linear) and isinstance(module, nn.Sequential | SwiGLU):
                    module.add_module(name, PackedLinear(child.weight, child.bias, dtype=dtype))
    return packed.eval()


class PackedCopy:
    """Keeps the packed copy of one network, and makes it again after the weights have changed.

    Args:
        dtype: as in `pack`.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._made: tuple[tuple[object, ...], nn.Module] | None = None

    def of(self, network: nn.Module) -> nn.Module:
        """Return the packed form of the network as it is now."""
        key = tuple(
            (p.data_ptr(), p.device, 0 if p.is_inference() else p._version)
            for p in network.parameters()
        )
        made = self._made
        if made is None or made[0] != key:
            self._made = made = (key, pack(network, self.dtype))
        return made[1]
