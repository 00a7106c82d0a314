"""Blocks that several networks share. Letters: B batch, N sequence, D width, C channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of float (B, heads, N, d), in the type that autocast says.

    Not on a CPU: there torch's attention is slower in bfloat16 than in float32.
    """
    if not torch.is_autocast_enabled("cpu") or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float())


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, q, k and v in one product.

    Args:
        width: D, length of a position's vector.
        num_heads: heads; each is width // num_heads wide, so the inner width can be below D.
        bias: whether the projections have biases.
        qk_norm: RMS-normalise q and k over all heads together, without parameters.
    """

    def __init__(
        self, width: int, num_heads: int, *, bias: bool = True, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qk_norm = qk_norm
        inner = width // num_heads * num_heads
        self.qkv = nn.Linear(width, 3 * inner, bias=bias)
        self.out = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Map float (B, N, D) to float (B, N, D), or to (B, M, D) where only the results at M
        positions of each row are wanted: at is int64 (B, M).
        """
        if at is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            weight, bias, inner = self.qkv.weight, self.qkv.bias, self.out.in_features
            q_bias, kv_bias = (None, None) if bias is None else (bias[:inner], bias[inner:])
            q = F.linear(take(x, at), weight[:inner], q_bias)
            k, v = F.linear(x, weight[inner:], kv_bias).chunk(2, dim=-1)
        if self.qk_norm:
            q, k = rms_norm(q), rms_norm(k)
        split = (self.num_heads, -1)
        q, k, v = (part.unflatten(-1, split).transpose(1, 2) for part in (q, k, v))
        mixed = attend(q, k, v)  # (B, heads, N or M, D / heads)
        return self.out(mixed.transpose(1, 2).flatten(2))


class GeluMLP(nn.Module):
    """Two linear layers around a GELU (`approximate="tanh"` for networks that come from JAX)."""

    def __init__(self, width: int, hidden: int, *, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., D) to float (..., D)."""
        return self.down(F.gelu(self.up(x), approximate=self.approximate))


class SwiGLU(nn.Module):
    """Gated MLP down(silu(gate x) * up x) without biases (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., D) to float (..., D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Divide by the root mean square of the last axis, in float32 whatever autocast says."""
    normed = F.rms_norm(x.float(), (x.shape[-1],), eps=eps)
    return normed.to(x.dtype) if weight is None else normed.to(x.dtype) * weight


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Scale by 1 + scale, then shift; x is (B, N, D), shift and scale are (B, D)."""
    return torch.addcmul(shift.unsqueeze(1), x, 1 + scale.unsqueeze(1))


def take(x: Tensor, at: Tensor) -> Tensor:
    """Return float (B, M, D), the vectors of float (B, N, D) at positions int64 (B, M)."""
    return x.gather(1, at.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def run_block(block: nn.Module, *arguments: Tensor | None, again: bool) -> Tensor:
    """Return block(*arguments); with `again` its inside is computed again for the gradient.

    Reference: training with sublinear memory (Chen et al. 2016).
    """
    return checkpoint(block, *arguments, use_reentrant=False) if again else block(*arguments)


def places_of(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a mask, bool (B, N), is True, as positions of equal number for each row.

    Args:
        cells: the mask.

    Returns:
        at, int64 (B, M): M is the largest number of True cells of a row; they come first, in
        order, then cells to fill up. valid, bool (B, M): which are True cells. What is computed
        at `at` and then taken at `valid` is ordered like `cells.nonzero()`.
    """
    most = int(cells.sum(1).max())
    at = cells.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    return at, cells.gather(1, at)


class ResBlock(nn.Module):
    """Two 3x3 convolutions with a skip; width is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (B, C, H, W) to float (B, C, H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(hidden)))
