"""Generator of the original MaskGIT: a post-norm BERT over image tokens (Chang et al. 2022).

Takes tokens int64 (B, N) or (B, h, w) with K where hidden and labels int64 (B,), and returns
float32 logits (B, N, K). It was trained without a null class, so it has no unconditional pass and
guidance does not apply; `null_label` is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.checks import check_range
from maskgit_core.networks.layers import GeluMLP, SelfAttention, take

NORM_EPS = 1e-12


@dataclass(frozen=True)
class BertConfig:
    """Shape of the post-norm generator.

    Args:
        codebook_size: K; the mask token id is K.
        num_classes: classes; there is no null class.
        grid_size: tokens a side.
        width: D, length of a token's vector; a multiple of num_heads.
        depth: number of layers.
        num_heads: attention heads.
        mlp_width: hidden units of a layer's MLP.

    Raises:
        ValueError: a value out of range.
    """

    codebook_size: int = 1024
    num_classes: int = 1000
    grid_size: int = 16
    width: int = 768
    depth: int = 24
    num_heads: int = 16
    mlp_width: int = 3072

    def __post_init__(self) -> None:
        for name in ("num_classes", "grid_size", "width", "depth", "num_heads", "mlp_width"):
            check_range(name, getattr(self, name), 1, whole=True)
        check_range("codebook_size", self.codebook_size, 2, whole=True)
        if self.width % self.num_heads:
            raise ValueError(f"num_heads must divide width {self.width}; got {self.num_heads}")

    @property
    def num_tokens(self) -> int:
        """N, number of cells of the grid."""
        return self.grid_size**2


class BertLayer(nn.Module):
    """Attention and MLP, each with a skip that is normalised afterwards.

    Args:
        width: D.
        num_heads: attention heads.
        mlp_width: hidden units of the MLP.
        approximate: of its GELU, as in `GeluMLP`.
    """

    def __init__(self, width: int, num_heads: int, mlp_width: int, *, approximate: str) -> None:
        super().__init__()
        self.attention = SelfAttention(width, num_heads)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = GeluMLP(width, mlp_width, approximate=approximate)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """Map float (B, N, D) to float (B, N, D), or (B, M, D) at positions int64 (B, M)."""
        hidden = self.attention(x, at)
        x = self.norm1((x if at is None else take(x, at)) + hidden)
        return self.norm2(x + self.mlp(x))


class BertTransformer(nn.Module):
    """Post-norm masked transformer with the class as the first token of the sequence.

    One embedding holds K codes, the classes and the mask token, in this order; its transpose is
    the output layer. GELU is the tanh approximation that the original framework computes.

    Args:
        config: the shape; kept as `config`.
    """

    null_label: int | None = None

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        width, rows = config.width, config.codebook_size + config.num_classes + 1
        self.embedding = nn.Embedding(rows, width)
        self.position = nn.Parameter(torch.empty(config.num_tokens + 1, width).normal_(std=0.02))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.layers = nn.ModuleList(
            BertLayer(width, config.num_heads, config.mlp_width, approximate="tanh")
            for _ in range(config.depth)
        )
        self.head = nn.Linear(width, width)
        self.head_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(rows))

    @property
    def mask_token_id(self) -> int:
        """K, the id of a hidden token."""
        return self.config.codebook_size

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return float32 (B, N, K) logits; see the module's docstring."""
        codes, table = self.config.codebook_size, self.embedding.weight
        tokens = tokens.flatten(1)
        rows = torch.where(tokens == self.mask_token_id, len(table) - 1, tokens)
        # Looked up among the classes alone, so that a label out of range cannot be a mask token.
        label = F.embedding(labels, table[codes:-1]).unsqueeze(1)
        x = self.norm(torch.cat([label, F.embedding(rows, table)], dim=1) + self.position)
        for layer in self.layers:
            x = layer(x)
        x = self.head_norm(F.gelu(self.head(x[:, 1:]), approximate="tanh"))
        return F.linear(x, table[:codes]).float() + self.bias[:codes]
