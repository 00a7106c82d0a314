"""Masked bidirectional transformers: logits of the hidden tokens from the visible ones and a class.

`MaskedTransformer` carries the class as a token (MaskGIT, Chang et al. 2022, in the form of the
v1.0 PyTorch reproduction by Besnier and Chen 2023); `AdaLNMaskedTransformer` carries it as a
modulation of every block (Halton-MaskGIT, Besnier et al. 2025; DiT, Peebles and Xie 2023).
Both take tokens int64 (B, N) or (B, h, w) with K where hidden and labels int64 (B,) with
num_classes for "no class", and return float32 logits (B, N, K) over the real codes only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.config import TransformerConfig
from maskgit_core.layers import GeluMLP, SelfAttention, SwiGLU, modulate, rms_norm


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a skip."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = GeluMLP(config.width, config.mlp_width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (B, N, D) to float (B, N, D)."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class MaskedTransformer(nn.Module):
    """Masked transformer with the class as the last token of the sequence.

    One embedding holds K codes, the mask token, the classes and the null class; its transpose is
    the output layer, with a bias for each position. The two-layer networks before and after the
    blocks, and the 1e-12 of their norms, are those of the v1.0 reproduction.

    Args:
        config: the shape; kept as `config`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, length = config.width, config.num_tokens + 1
        rows = config.codebook_size + 1 + config.num_classes + 1
        self.embedding = nn.Embedding(rows, width)
        self.position = nn.Parameter(torch.empty(length, width))
        self.stem = nn.Sequential(
            nn.LayerNorm(width, eps=1e-12),
            nn.Linear(width, width),
            nn.GELU(),
            nn.LayerNorm(width, eps=1e-12),
            nn.Linear(width, width),
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head = nn.Sequential(
            nn.LayerNorm(width, eps=1e-12),
            nn.Linear(width, width),
            nn.GELU(),
            nn.LayerNorm(width, eps=1e-12),
        )
        self.bias = nn.Parameter(torch.zeros(length, rows))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: normal with deviation 0.02, zeros for biases and block outputs."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.down.weight)
        nn.init.normal_(self.position, std=0.02)
        nn.init.zeros_(self.bias)

    @property
    def null_label(self) -> int:
        """The label of "no class"."""
        return self.config.num_classes

    @property
    def mask_token_id(self) -> int:
        """K, the id of a hidden token."""
        return self.config.codebook_size

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return float32 (B, N, K) logits; see the module's docstring."""
        codes = self.config.codebook_size
        sequence = torch.cat([tokens.flatten(1), (labels + codes + 1).unsqueeze(1)], dim=1)
        x = self.stem(self.embedding(sequence) + self.position)
        for block in self.blocks:
            x = block(x)
        x = self.head(x[:, :-1])
        logits = F.linear(x, self.embedding.weight[:codes])
        return logits.float() + self.bias[:-1, :codes]


class AdaLNBlock(nn.Module):
    """Pre-norm attention and SwiGLU, shifted, scaled and gated by the class."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.Parameter(torch.ones(config.width))
        self.attention = SelfAttention(config.width, config.num_heads, bias=False, qk_norm=True)
        self.norm2 = nn.Parameter(torch.ones(config.width))
        self.mlp = SwiGLU(config.width, config.mlp_width)
        self.modulation = nn.Linear(config.width, 6 * config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map float (B, N, D) to float (B, N, D); condition is float (B, D)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        hidden = self.attention(modulate(rms_norm(x, self.norm1), shift1, scale1))
        x = x + gate1.unsqueeze(1) * self.dropout(hidden)
        hidden = self.mlp(modulate(rms_norm(x, self.norm2), shift2, scale2))
        return x + gate2.unsqueeze(1) * self.dropout(hidden)


class TokenMerge(nn.Module):
    """Squares of tokens to one token by a strided convolution, and back by a linear map.

    Args:
        width: D.
        side: tokens a side of a square.
        grid_size: tokens a side of the whole grid.
    """

    def __init__(self, width: int, side: int, grid_size: int) -> None:
        super().__init__()
        self.side = side
        self.grid_size = grid_size
        self.join = nn.Conv2d(width, width, side, stride=side, bias=False)
        self.split = nn.Linear(width, width * side**2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (B, N, D) to float (B, N / side ** 2, D)."""
        grid = x.unflatten(1, (self.grid_size, self.grid_size)).movedim(-1, 1)
        return self.join(grid).flatten(2).transpose(1, 2)

    def inverse(self, x: Tensor) -> Tensor:
        """Map float (B, N / side ** 2, D) to float (B, N, D)."""
        merged = self.grid_size // self.side
        grid = self.split(x).unflatten(1, (merged, merged)).movedim(-1, 1)
        return F.pixel_shuffle(grid, self.side).flatten(2).transpose(1, 2)


class AdaLNMaskedTransformer(nn.Module):
    """Masked transformer with the class as a modulation of every block.

    Registers, tokens without a place in the image, are appended and dropped before the output
    layer, which is the transpose of the token embedding.

    Args:
        config: the shape; kept as `config`.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(config.codebook_size + 1, width)
        self.class_embedding = nn.Embedding(config.num_classes + 1, width)
        self.position = nn.Parameter(torch.empty(config.num_tokens, width))
        self.registers = nn.Parameter(torch.empty(config.num_registers, width))
        self.merge = None
        if config.merge > 1:
            self.merge = TokenMerge(width, config.merge, config.grid_size)
        self.blocks = nn.ModuleList(AdaLNBlock(config) for _ in range(config.depth))
        self.norm_weight = nn.Parameter(torch.ones(width))
        self.norm_bias = nn.Parameter(torch.zeros(width))
        self.modulation = nn.Linear(width, 2 * width)
        self.bias = nn.Parameter(torch.zeros(config.codebook_size + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: normal with deviation 0.02, zeros for modulations (DiT, Sec. 3.2)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for modulation in [self.modulation, *(block.modulation for block in self.blocks)]:
            nn.init.zeros_(modulation.weight)
            nn.init.zeros_(modulation.bias)
        for table in (self.position, self.registers):
            nn.init.normal_(table, std=0.02)

    @property
    def null_label(self) -> int:
        """The label of "no class"."""
        return self.config.num_classes

    @property
    def mask_token_id(self) -> int:
        """K, the id of a hidden token."""
        return self.config.codebook_size

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return float32 (B, N, K) logits; see the module's docstring."""
        codes = self.config.codebook_size
        x = self.embedding(tokens.flatten(1)) + self.position
        if self.merge is not None:
            x = self.merge(x)
        length = x.shape[1]
        x = torch.cat([x, self.registers.expand(len(x), -1, -1)], dim=1)
        condition = F.silu(self.class_embedding(labels))
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        x = x[:, :length]
        if self.merge is not None:
            x = self.merge.inverse(x)
        x = rms_norm(x, self.norm_weight) + self.norm_bias
        logits = F.linear(modulate(x, shift, scale), self.embedding.weight[:codes])
        return logits.float() + self.bias[:codes]


def build_transformer(config: TransformerConfig) -> MaskedTransformer | AdaLNMaskedTransformer:
    """Return the network that `config.kind` names, with random weights."""
    kinds = {"class_token": MaskedTransformer, "adaln": AdaLNMaskedTransformer}
    return kinds[config.kind](config)
