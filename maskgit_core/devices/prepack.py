"""Networks with weights laid out for the processor: the same numbers up to rounding, sooner.

A product of a few hundred rows spends a part of its time on bringing the weights into the order
in which the processor reads them. oneDNN can do that once, and then adds bias and GELU while a
result is still in a register. The copy is for decoding only: it has no gradients and does not
follow later changes of the weights. What it saves is in the table of `devices`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.devices.precision import Int8Linear, bfloat16_works
from maskgit_core.networks.layers import GeluMLP, SelfAttention, SwiGLU, rms_norm, take

TRIAL_TOLERANCE = 1e-4


class PackedLinear(nn.Module):
    """A linear layer with packed weights, and a GELU behind it where asked.

    Args:
        weight, bias: float32 (out, in) and (out,) or None, on the CPU.
        gelu: None, or the `approximate` of the GELU, `none` or `tanh`.
        dtype: of the product, float32 or bfloat16; sums are float32 within.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        *,
        gelu: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weight = weight.detach().to(dtype).contiguous()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = None if bias is None else bias.detach().to(dtype).contiguous()
        self.activation = ("none", "") if gelu is None else ("gelu", gelu)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., in) to float32 (..., out)."""
        (name, algorithm), linear = self.activation, torch.ops.mkldnn._linear_pointwise.default
        return linear(x.to(self.dtype), self.packed, self.bias, name, [], algorithm).float()


def packed_linear(
    weight: Tensor, bias: Tensor | None, precision: str, *, gelu: str | None = None
) -> nn.Module:
    """Return a linear layer for decoding, float to float32, in one of `config.PRECISIONS`."""
    if precision == "int8":
        return Int8Linear(weight, bias, gelu=gelu)
    return PackedLinear(weight, bias, gelu=gelu, dtype=getattr(torch, precision))


class PackedAttention(nn.Module):
    """`SelfAttention` with packed weights.

    Args:
        source: what to copy.
        precision: of the products with weights.
    """

    def __init__(self, source: SelfAttention, precision: str) -> None:
        super().__init__()
        self.num_heads, self.qk_norm = source.num_heads, source.qk_norm
        self.qkv = packed_linear(source.qkv.weight, source.qkv.bias, precision)
        self.out = packed_linear(source.out.weight, source.out.bias, precision)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Map float (B, N, D) to float (B, N, D), or (B, M, D) at positions int64 (B, M)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q if at is None else take(q, at)
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        split = (len(q), -1, self.num_heads, q.shape[-1] // self.num_heads)
        q, k, v = (part.view(split).transpose(1, 2) for part in (q, k, v))
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


def pack(network: nn.Module, precision: str = "float32") -> nn.Module:
    """Return a copy of a transformer with packed weights, or the network itself.

    Layers of the blocks, the stem and the head are packed, and their products are rounded as the
    precision says; everything else is float32 and shared with the network. Where the network is
    not float32 on the CPU, or packing does not work, it is returned as it is.

    Args:
        network: a transformer.
        precision: one of `config.PRECISIONS`.
    """
    parameters = list(network.parameters())
    fitting = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in parameters)
    works = precision == "int8" or packing_works()
    if precision == "bfloat16":
        works = works and bfloat16_works()
    if not parameters or not fitting or not works:
        return network
    with torch.no_grad():
        packed = copy.deepcopy(network, {id(parameter): parameter for parameter in parameters})
        _pack_children(packed, precision)
    return packed.eval()


def _pack_children(module: nn.Module, precision: str) -> None:
    for name, child in list(module.named_children()):
        packer = PACKERS.get(type(child))
        if packer is None:
            _pack_children(child, precision)
        else:
            module.add_module(name, packer(child, precision))


def _packed_mlp(mlp: Any, precision: str) -> nn.Module:
    up = packed_linear(mlp.up.weight, mlp.up.bias, precision, gelu=mlp.approximate)
    return nn.Sequential(up, packed_linear(mlp.down.weight, mlp.down.bias, precision))


def _packed_linears(module: nn.Module, precision: str) -> nn.Module:
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            module.add_module(name, packed_linear(child.weight, child.bias, precision))
    return module


# Layer -> what makes its packed form. Other linear layers see few rows, or their weights are read.
PACKERS: dict[type[nn.Module], Callable[[Any, str], nn.Module]] = {
    SelfAttention: PackedAttention,
    GeluMLP: _packed_mlp,
    SwiGLU: _packed_linears,
    nn.Sequential: _packed_linears,
}


class PackedCopy:
    """Keeps the packed copy of one network, and makes it again after the weights have changed.

    Args:
        precision: as in `pack`.
    """

    def __init__(self, precision: str = "float32") -> None:
        self.precision = precision
        self._made: tuple[tuple[object, ...], nn.Module] | None = None

    def of(self, network: nn.Module) -> nn.Module:
        """Return the packed form of the network as it is now."""
        key = tuple(
            (p.data_ptr(), p.device, 0 if p.is_inference() else p._version)
            for p in network.parameters()
        )
        made = self._made
        if made is None or made[0] != key:
            self._made = made = (key, pack(network, self.precision))
        return made[1]
