"""Generator of MaskBit: a post-norm BERT that reads the bits of its tokens (Weber et al. 2024).

A cell of the grid holds `bits` bits in `groups` groups of equal size, least significant first, and
each group is a token of its own: a whole number, C = 2 ** (bits / groups) where it is masked. There
is no token embedding. The network reads each bit as -1 or 1, 0 where its group is masked, and
answers with one distribution over C values for each group.

Letters here: B batch, N cells, G groups, C values of a group, P = N * G positions, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.checks import check_range
from maskgit_core.networks.bert import NORM_EPS, BertLayer
from maskgit_core.networks.layers import places_of


@dataclass(frozen=True)
class MaskBitConfig:
    """Shape of MaskBit's generator.

    Args:
        bits: of a cell; a multiple of `groups`.
        groups: G, parts of a cell that are masked on their own.
        num_classes: classes; the null label is num_classes.
        grid_size: cells a side.
        width: D, a multiple of num_heads.
        depth: number of layers.
        num_heads: attention heads.
        mlp_width: hidden units of a layer's MLP.

    Raises:
        ValueError: a value out of range.
    """

    bits: int = 14
    groups: int = 2
    num_classes: int = 1000
    grid_size: int = 16
    width: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_width: int = 4096

    def __post_init__(self) -> None:
        for name in ("num_classes", "grid_size", "width", "depth", "num_heads", "mlp_width"):
            check_range(name, getattr(self, name), 1, whole=True)
        check_range("bits", self.bits, 1, 24, whole=True)
        check_range("groups", self.groups, 1, self.bits, whole=True)
        if self.bits % self.groups:
            raise ValueError(f"groups must divide bits {self.bits}; got {self.groups}")
        if self.width % self.num_heads:
            raise ValueError(f"num_heads must divide width {self.width}; got {self.num_heads}")

    @property
    def codebook_size(self) -> int:
        """K = 2 ** bits, number of ids of a cell; K itself is the id of a masked cell."""
        return 2**self.bits

    @property
    def group_size(self) -> int:
        """C, number of values of a group; C itself is the token of a masked group."""
        return 2 ** (self.bits // self.groups)

    @property
    def num_tokens(self) -> int:
        """N, number of cells of the grid."""
        return self.grid_size**2


class MaskBitTransformer(nn.Module):
    """Post-norm masked transformer over groups of bits, with the class as the last position.

    Args:
        config: the shape; kept as `config`.
    """

    def __init__(self, config: MaskBitConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = nn.Linear(config.bits, width)
        self.class_embedding = nn.Embedding(config.num_classes + 1, width)
        self.position = nn.Parameter(torch.empty(config.num_tokens + 1, width).normal_(std=0.02))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.blocks = nn.ModuleList(
            BertLayer(width, config.num_heads, config.mlp_width, approximate="none")
            for _ in range(config.depth)
        )
        self.head = nn.Linear(width, width)
        self.head_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.output = nn.Linear(width, config.groups * config.group_size)

    @property
    def null_label(self) -> int:
        """The label of "no class"."""
        return self.config.num_classes

    @property
    def mask_token_id(self) -> int:
        """C, the token of a masked group."""
        return self.config.group_size

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return float32 (B, N, G, C) logits.

        Args:
            tokens: int64 (B, N, G) or (B, h, w, G), in [0, C]; C where masked. Given cell by cell
                as (B, P), the logits are (B, P, C).
            labels: int64 (B,), num_classes for "no class"; never changed.
        """
        x = self._embedded(tokens, labels)
        for block in self.blocks:
            x = block(x)
        logits = self.output(self._head(x[:, :-1])).float()
        groups = (-1,) if tokens.ndim == 2 else (x.shape[1] - 1, self.config.groups)
        return logits.view(len(x), *groups, self.config.group_size)

    def bits_of(self, tokens: Tensor) -> Tensor:
        """Return float32 (B, N, bits): -1 or 1, and 0 for the bits of a masked group."""
        grouped = tokens.reshape(len(tokens), -1, self.config.groups, 1)
        places = torch.arange(self.config.bits // self.config.groups, device=tokens.device)
        bits = (grouped >> places & 1) * 2 - 1
        return bits.masked_fill(grouped == self.mask_token_id, 0).flatten(2).float()

    def _embedded(self, tokens: Tensor, labels: Tensor) -> Tensor:
        label = self.class_embedding(labels).unsqueeze(1)
        return self.norm(torch.cat([self.stem(self.bits_of(tokens)), label], 1) + self.position)

    def _head(self, x: Tensor) -> Tensor:
        return self.head_norm(F.gelu(self.head(x)))

    def condition(self, labels: Tensor) -> Tensor:
        """Return what `hidden_at` needs of the classes: here the labels, int64 (B,)."""
        return labels

    def hidden_at(self, tokens: Tensor, condition: Tensor, cells: Tensor) -> Tensor:
        """Return float (M, D), what the output layer reads at the M positions of bool (B, P)."""
        x = self._embedded(tokens, condition)
        for block in self.blocks[:-1]:
            x = block(x)
        grouped = cells.view(len(cells), -1, self.config.groups)
        asked = grouped.any(-1)
        at, valid = places_of(asked)
        hidden = self._head(self.blocks[-1](x, at)[valid])
        # One vector a cell serves all of its groups that are asked for.
        cell, _ = grouped[asked].nonzero(as_tuple=True)
        return hidden[cell]

    def logits_of(self, hidden: Tensor, cell: Tensor) -> Tensor:
        """Return float32 (M, C) logits of vectors float (M, D) at positions int64 (M,)."""
        groups, size = self.config.groups, self.config.group_size
        logits = hidden.new_empty(len(hidden), size, dtype=torch.float32)
        for group in range(groups):
            here = cell % groups == group
            rows = slice(group * size, (group + 1) * size)
            part = F.linear(hidden[here], self.output.weight[rows], self.output.bias[rows])
            logits[here] = part.float()
        return logits
