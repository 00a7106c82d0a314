"""Networks with weights laid out for the processor: the same numbers up to rounding, sooner.

A product of a few hundred rows spends a part of its time on bringing the weights into the order
in which the processor reads them. oneDNN can do that once, and then adds bias and GELU while a
result is still in a register; on a CPU with AVX-512 a pass takes about a fifth less time. The
copy is for decoding only: it has no gradients and does not follow later changes of the weights.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.devices.precision import Int8Linear, bfloat16_works
from maskgit_core.networks.layers import GeluMLP, SelfAttention, SwiGLU, rms_norm, take
from maskgit_core.networks.transformer import Block

TRIAL_TOLERANCE = 1e-4


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

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map float (..., in) to `result` (..., out), and add skip, of the result's shape."""
        linear, (name, algorithm) = torch.ops.mkldnn._linear_pointwise, self.activation
        if skip is not None and name == "none" and self.dtype == torch.float32:
            return linear.binary(x, skip, self.packed, self.bias, "add")
        y = linear.default(x.to(self.dtype), self.packed, self.bias, name, [], algorithm)
        y = y.to(self.result)
        return y if skip is None else skip + y


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
        split: keep q apart from k and v, for a layer that is asked about some positions only.
        precision: of the products with weights.
    """

    def __init__(self, source: SelfAttention, *, split: bool, precision: str) -> None:
        super().__init__()
        self.num_heads, self.qk_norm = source.num_heads, source.qk_norm
        weight, bias, inner = source.qkv.weight, source.qkv.bias, source.out.in_features
        sizes = (inner, 2 * inner) if split else (3 * inner,)
        biases = (None,) * len(sizes) if bias is None else bias.split(sizes)
        self.projections = nn.ModuleList(
            packed_linear(*pair, precision)
            for pair in zip(weight.split(sizes), biases, strict=True)
        )
        self.out = packed_linear(source.out.weight, source.out.bias, precision)

    def forward(self, x: Tensor, at: Tensor | None = None, skip: Tensor | None = None) -> Tensor:
        """Map float (B, N, D) to float (B, N, D), or (B, M, D) at positions int64 (B, M).

        skip, of the result's shape, is added to it.
        """
        if len(self.projections) == 2:
            q = self.projections[0](x if at is None else take(x, at))
            k, v = self.projections[1](x).chunk(2, dim=-1)
        else:
            q, k, v = self.projections[0](x).chunk(3, dim=-1)
            q = q if at is None else take(q, at)
        return self.mixed(q, k, v, skip)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, skip: Tensor | None = None) -> Tensor:
        """Attend with q float (B, M, D), k and v float (B, N, D); add skip to the result."""
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        split = (len(q), -1, self.num_heads, q.shape[-1] // self.num_heads)
        q, k, v = (part.view(split).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2), skip)


class PackedBlock(nn.Module):
    """`Block` with packed weights; a product adds its skip while the result is in a register.

    Args:
        source: what to copy.
        split, precision: as in `PackedAttention`.
    """

    def __init__(self, source: Block, *, split: bool, precision: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = source.norm1, source.norm2
        self.attention = PackedAttention(source.attention, split=split, precision=precision)
        self.up, self.down = _packed_mlp(source.mlp, precision)

    def projected(self, x: Tensor) -> Tensor:
        """Return q, k and v side by side, float (..., 3 D), of x, float (..., D)."""
        return torch.cat([layer(self.norm1(x)) for layer in self.attention.projections], dim=-1)

    def forward(
        self,
        x: Tensor,
        at: Tensor | None = None,
        cells: Tensor | None = None,
        qkv: Tensor | None = None,
    ) -> Tensor:
        """As `Block.forward`; qkv is `projected(x)` where that is known (not together with at)."""
        skip = x if at is None else take(x, at)
        if qkv is None:
            x = self.attention(self.norm1(x), at, skip)
        else:
            q, k, v = qkv.chunk(3, dim=-1)
            x = self.attention.mixed(q, k, v, skip)
        x = x if cells is None else x[cells]
        return self.down(self.up(self.norm2(x)), x)


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
        blocks = getattr(packed, "blocks", None)
        _pack_children(packed, precision, blocks[-1] if blocks else None)
    return packed.eval()


def _pack_children(module: nn.Module, precision: str, last: nn.Module | None) -> None:
    for name, child in list(module.named_children()):
        # Of the last block q is asked at some positions only.
        split = child is last or module is last
        if isinstance(child, Block):
            packed: nn.Module = PackedBlock(child, split=split, precision=precision)
        elif isinstance(child, SelfAttention):
            packed = PackedAttention(child, split=split, precision=precision)
        elif isinstance(child, GeluMLP):
            packed = nn.Sequential(*_packed_mlp(child, precision))
        elif isinstance(child, nn.Linear) and isinstance(module, nn.Sequential | SwiGLU):
            packed = packed_linear(child.weight, child.bias, precision)
        else:
            _pack_children(child, precision, last)
            continue
        module.add_module(name, packed)


def _packed_mlp(mlp: GeluMLP, precision: str) -> tuple[nn.Module, nn.Module]:
    up, down = (mlp.up.weight, mlp.up.bias), (mlp.down.weight, mlp.down.bias)
    if precision == "bfloat16":
        # What lies between is rounded for the next product anyway: it need not become float32.
        dtype = torch.bfloat16
        first: nn.Module = PackedLinear(*up, gelu=mlp.approximate, dtype=dtype, result=dtype)
    else:
        first = packed_linear(*up, precision, gelu=mlp.approximate)
    return first, packed_linear(*down, precision)


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
