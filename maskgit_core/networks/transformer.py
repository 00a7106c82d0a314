"""Masked bidirectional transformers: logits of the hidden tokens from the visible ones and a class.

`MaskedTransformer` carries the class as a token (MaskGIT, Chang et al. 2022, in the form of the
v1.0 PyTorch reproduction by Besnier and Chen 2023); `AdaLNMaskedTransformer` carries it as a
modulation of every block (Halton-MaskGIT, Besnier et al. 2025; DiT, Peebles and Xie 2023).
Both take tokens int64 (B, N) or (B, h, w) with K where hidden and labels int64 (B,) with
num_classes for "no class", and return float32 logits (B, N, K) over the real codes only.

For decoding they offer the same in three parts (`decoding.loop.CellNetwork`), so that nothing is
computed twice or at cells that nobody asks for: `condition` of the classes, once a decoding;
`hidden_at` the wanted cells, where the last block looks at all tokens but answers for these only;
`logits_of` those vectors. For training, `forward` takes cells too: all blocks look at everything,
and the output layer, the widest of all, runs where a loss is taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.config import TransformerConfig
from maskgit_core.networks.layers import (
    GeluMLP,
    SelfAttention,
    SwiGLU,
    modulate,
    places_of,
    rms_norm,
    run_block,
    take,
)


class Block(nn.Module):
    """Pre-norm attention and MLP, each with a skip."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = SelfAttention(config.width, config.num_heads)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = GeluMLP(config.width, config.mlp_width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, at: Tensor | None = None, cells: Tensor | None = None) -> Tensor:
        """Map float (B, N, D) to float (B, N, D), or (B, M, D) at positions int64 (B, M).

        With cells, bool (B, N), the MLP runs for these only: the result is float (M, D).
        """
        hidden = self.attention(self.norm1(x), at)
        x = (x if at is None else take(x, at)) + self.dropout(hidden)
        x = x if cells is None else x[cells]
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
        self.checkpoint_blocks = False
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

    def forward(self, tokens: Tensor, labels: Tensor, cells: Tensor | None = None) -> Tensor:
        """Return float32 (B, N, K) logits, or (M, K) at the M cells of bool (B, N)."""
        codes = self.config.codebook_size
        x = self._embedded(tokens, labels)
        for block in self.blocks[:-1]:
            x = run_block(block, x, again=self.checkpoint_blocks)
        if cells is not None:
            wanted = F.pad(cells, (0, 1))  # not the class
            x = run_block(self.blocks[-1], x, None, wanted, again=self.checkpoint_blocks)
            return self.logits_of(self.head(x), cells.nonzero()[:, 1])
        x = self.head(run_block(self.blocks[-1], x, again=self.checkpoint_blocks)[:, :-1])
        logits = F.linear(x, self.embedding.weight[:codes])
        return logits.float() + self.bias[:-1, :codes]

    def _embedded(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return float (B, N + 1, D), the inputs of the first block: tokens, then the class."""
        first_class = self.config.codebook_size + 1
        ids = torch.cat([tokens.flatten(1), (labels + first_class).unsqueeze(1)], dim=1)
        return self.stem(self.embedding(ids) + self.position)

    def condition(self, labels: Tensor) -> Tensor:
        """Return what `hidden_at` needs of the classes: here the labels, int64 (B,)."""
        return labels

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """Return float (M, D), what the output layer reads at the M cells of bool (B, N)."""
        x = self._embedded(tokens, condition)
        for block in self.blocks[:-1]:
            x = block(x)
        at, valid = places_of(cells)
        return self.head(self.blocks[-1](x, at)[valid])

    def logits_of(self, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return float32 (M, K) logits of vectors float (M, D) at positions int64 (M,)."""
        codes = self.config.codebook_size
        logits = F.linear(hidden, self.embedding.weight[:codes]).float()
        return logits.add_(F.embedding(cell, self.bias[:, :codes]))


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

    def forward(self, x: Tensor, modulation: Tensor, at: Tensor | None = None) -> Tensor:
        """Map float (B, N, D) to float (B, N, D), or (B, M, D) at positions int64 (B, M).

        modulation is float (B, 6 D), the block's own linear map of the class.
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        hidden = self.attention(modulate(rms_norm(x, self.norm1), shift1, scale1), at)
        x = x if at is None else take(x, at)
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
        self.checkpoint_blocks = False
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

    def forward(self, tokens: Tensor, labels: Tensor, cells: Tensor | None = None) -> Tensor:
        """Return float32 (B, N, K) logits, or (M, K) at the M cells of bool (B, N)."""
        condition = F.silu(self.class_embedding(labels))
        x, length = self._embedded(tokens)
        for block in self.blocks:
            x = run_block(block, x, block.modulation(condition), again=self.checkpoint_blocks)
        x = self._modulated(x[:, :length], self.modulation(condition))
        return self._logits(x if cells is None else x[cells])

    def _embedded(self, tokens: Tensor) -> tuple[Tensor, int]:
        x = self.embedding(tokens.flatten(1)) + self.position
        if self.merge is not None:
            x = self.merge(x)
        return torch.cat([x, self.registers.expand(len(x), -1, -1)], dim=1), x.shape[1]

    def _modulated(self, x: Tensor, modulation: Tensor) -> Tensor:
        if self.merge is not None:
            x = self.merge.inverse(x)
        shift, scale = modulation.chunk(2, dim=-1)
        return modulate(rms_norm(x, self.norm_weight) + self.norm_bias, shift, scale)

    def _logits(self, x: Tensor) -> Tensor:
        codes = self.config.codebook_size
        return F.linear(x, self.embedding.weight[:codes]).float() + self.bias[:codes]

    def condition(self, labels: Tensor) -> Tensor:
        """Return what `hidden_at` needs of the classes int64 (B,): the modulations of all blocks
        and of the last norm side by side, float (B, (6 depth + 2) D).
        """
        condition = F.silu(self.class_embedding(labels))
        layers = [*(block.modulation for block in self.blocks), self.modulation]
        return torch.cat([layer(condition) for layer in layers], dim=-1)

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """Return float (M, D), what the output layer reads at the M cells of bool (B, N)."""
        width = self.config.width
        *modulations, last = condition.split([6 * width] * self.config.depth + [2 * width], -1)
        x, length = self._embedded(tokens)
        for block, modulation in zip(self.blocks[:-1], modulations, strict=False):
            x = block(x, modulation)
        if self.merge is not None:
            x = self.blocks[-1](x, modulations[-1])
            return self._modulated(x[:, :length], last)[cells]
        at, valid = places_of(cells)
        return self._modulated(self.blocks[-1](x, modulations[-1], at), last)[valid]

    def logits_of(self, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return float32 (M, K) logits of vectors float (M, D), the same at every position."""
        return self._logits(hidden)
