"""A plain decoding loop, which the real one is compared with: straightforward PyTorch.

Networks with separate products for q, k and v (and for gate and up), logits of every code at
every position, two passes a step wherever guidance is on, and an image of every step. Given the
weights of one of our networks and the same seeds it decodes the same tokens, so the comparison is
between two ways to compute one thing. The loop is kept simple on purpose: do not make it faster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.config import SamplingConfig, TransformerConfig
from maskgit_core.decoding.chance import seeded_generator
from maskgit_core.networks.registry import TRANSFORMERS
from maskgit_core.networks.transformer import AdaLNMaskedTransformer, MaskedTransformer
from maskgit_core.orders import ORDERS
from maskgit_core.schedules import guidance_at, noise_at, reveal_counts, temperature_at


class PlainBlock(nn.Module):
    """Pre-norm `nn.MultiheadAttention` and a GELU network, each with a skip."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = nn.MultiheadAttention(config.width, config.num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (B, N, D) to float (B, N, D)."""
        hidden = self.norm1(x)
        # Three objects in place of one, so that q, k and v are three products.
        key, value = hidden.view_as(hidden), hidden.view_as(hidden)
        x = x + self.attention(hidden, key, value, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class PlainTransformer(nn.Module):
    """The network of `MaskedTransformer`, with the same weights.

    Args:
        model: the network to copy; width must be a multiple of num_heads.
    """

    def __init__(self, model: MaskedTransformer) -> None:
        super().__init__()
        self.config = config = model.config
        self.null_label, self.mask_token_id = model.null_label, model.mask_token_id
        self.embedding = copy.deepcopy(model.embedding)
        self.position = nn.Parameter(model.position.detach().clone())
        self.stem, self.head = copy.deepcopy(model.stem), copy.deepcopy(model.head)
        self.bias = nn.Parameter(model.bias.detach().clone())
        self.blocks = nn.ModuleList()
        for source in model.blocks:
            block = PlainBlock(config)
            for ours, theirs in (
                (block.norm1, source.norm1),
                (block.attention.out_proj, source.attention.out),
                (block.norm2, source.norm2),
                (block.up, source.mlp.up),
                (block.down, source.mlp.down),
            ):
                ours.load_state_dict(theirs.state_dict())
            with torch.no_grad():
                block.attention.in_proj_weight.copy_(source.attention.qkv.weight)
                block.attention.in_proj_bias.copy_(source.attention.qkv.bias)
            self.blocks.append(block)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return float32 (B, N, K) logits of tokens int64 (B, N or h, w) and labels int64 (B,)."""
        codes = self.config.codebook_size
        sequence = torch.cat([tokens.flatten(1), (labels + codes + 1).unsqueeze(1)], dim=1)
        x = self.stem(self.embedding(sequence) + self.position)
        for block in self.blocks:
            x = block(x)
        logits = self.head(x) @ self.embedding.weight.T + self.bias
        return logits[:, :-1, :codes]


class PlainAdaLNBlock(nn.Module):
    """Attention and SwiGLU with six separate products, modulated by the class."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, inner = config.width, config.width // config.num_heads * config.num_heads
        self.num_heads = config.num_heads
        self.norm1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.Parameter(torch.ones(width))
        # One matrix for the optimizer, as in ours; used in three products.
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, width, bias=False)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map float (B, N, D) to float (B, N, D); condition is float (B, D)."""
        modulation = self.modulation(F.silu(condition)).unsqueeze(1)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        hidden = _plain_norm(x) * self.norm1 * (1 + scale1) + shift1
        q, k, v = (F.linear(hidden, part) for part in self.qkv.weight.chunk(3))
        q, k = _plain_norm(q), _plain_norm(k)
        split = (self.num_heads, -1)
        q, k, v = (part.unflatten(-1, split).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + gate1 * self.out(mixed)
        hidden = _plain_norm(x) * self.norm2 * (1 + scale2) + shift2
        gate, up = (F.linear(hidden, part) for part in self.gate_up.weight.chunk(2))
        return x + gate2 * self.down(F.silu(gate) * up)


class PlainAdaLNTransformer(nn.Module):
    """The network of `AdaLNMaskedTransformer`, with the same weights.

    Args:
        model: the network to copy.
    """

    def __init__(self, model: AdaLNMaskedTransformer) -> None:
        super().__init__()
        self.config = config = model.config
        self.null_label, self.mask_token_id = model.null_label, model.mask_token_id
        self.embedding = copy.deepcopy(model.embedding)
        self.class_embedding = copy.deepcopy(model.class_embedding)
        self.merge = None if model.merge is None else copy.deepcopy(model.merge)
        self.modulation = copy.deepcopy(model.modulation)
        for name in ("position", "registers", "norm_weight", "norm_bias", "bias"):
            setattr(self, name, nn.Parameter(getattr(model, name).detach().clone()))
        self.blocks = nn.ModuleList()
        for source in model.blocks:
            block = PlainAdaLNBlock(config)
            with torch.no_grad():
                for ours, theirs in (
                    (block.norm1, source.norm1),
                    (block.norm2, source.norm2),
                    (block.qkv.weight, source.attention.qkv.weight),
                    (block.out.weight, source.attention.out.weight),
                    (block.gate_up.weight, source.mlp.gate_up.weight),
                    (block.down.weight, source.mlp.down.weight),
                    (block.modulation.weight, source.modulation.weight),
                    (block.modulation.bias, source.modulation.bias),
                ):
                    ours.copy_(theirs)
            self.blocks.append(block)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return float32 (B, N, K) logits of tokens int64 (B, N or h, w) and labels int64 (B,)."""
        x = self.embedding(tokens.flatten(1)) + self.position
        if self.merge is not None:
            x = self.merge(x)
        x = torch.cat([x, self.registers.expand(len(x), -1, -1)], dim=1)
        condition = self.class_embedding(labels)
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.modulation(F.silu(condition)).unsqueeze(1).chunk(2, dim=-1)
        x = x[:, : x.shape[1] - len(self.registers)]
        if self.merge is not None:
            x = self.merge.inverse(x)
        x = (_plain_norm(x) * self.norm_weight + self.norm_bias) * (1 + scale) + shift
        logits = x @ self.embedding.weight.T + self.bias
        return logits[..., : self.config.codebook_size]


PLAIN_FORMS: dict[str, Callable[[Any], nn.Module]] = {
    "class_token": PlainTransformer,
    "adaln": PlainAdaLNTransformer,
}


def plain_transformer(model: nn.Module) -> nn.Module:
    """Return the plain form of one of our masked transformers, in the same mode.

    Raises:
        ValueError: a network that has no plain form here.
    """
    forms = {TRANSFORMERS[word].network: form for word, form in PLAIN_FORMS.items()}
    plain = forms.get(type(model))
    # `nn.MultiheadAttention` has no heads that are narrower than their share.
    if plain is None or (model.config.width % model.config.num_heads and plain is PlainTransformer):
        raise ValueError(f"model must have a plain form; {type(model).__name__} has none")
    return plain(model).train(model.training)


def plain_steps(
    network: Callable[[Tensor, Tensor], Tensor],
    tokens: Tensor,
    labels: Tensor,
    config: SamplingConfig,
    *,
    codebook_size: int,
    null_label: int,
    seeds: Sequence[int],
) -> Iterator[Tensor]:
    """Yield the token grids after each step, int64 (B, h, w); arguments as `decode_steps`.

    The random numbers are drawn as `decode_steps` documents it, one generator an image.

    Raises:
        ValueError: top_k or top_p, which the plain loop does not have.
    """
    if config.top_k is not None or config.top_p is not None:
        raise ValueError("top_k and top_p must be None: the plain loop does not have them")
    shape, tokens = tokens.shape, tokens.flatten(1)
    cells = tokens.shape[1]
    counts = [
        reveal_counts(config.schedule, int(row.sum()), config.num_steps)
        for row in tokens == codebook_size
    ]
    generators = [seeded_generator(seed) for seed in seeds]
    places = [_places(config.order, shape[1:], generator) for generator in generators]
    guided = config.guidance_scale != 1
    for step in range(max(1, *map(len, counts))):
        logits = network(tokens, labels).float()
        if guided:
            unconditional = network(tokens, torch.full_like(labels, null_label)).float()
            scales = torch.tensor([_scale(config, step, plan) for plan in counts]).view(-1, 1, 1)
            logits = unconditional + scales * (logits - unconditional)
        tokens = tokens.clone()
        for row, plan in enumerate(counts):
            if step >= len(plan):
                continue
            temperature = _temperature(config, step, plan)
            probabilities = torch.softmax(logits[row] / (temperature or 1.0), dim=-1)
            uniform = torch.rand(cells, generator=generators[row])
            cumulative = probabilities.cumsum(-1)
            target = (uniform.unsqueeze(-1) * cumulative[:, -1:]).contiguous()
            codes = torch.searchsorted(cumulative, target, right=True)
            codes = codes.squeeze(-1).clamp(max=codebook_size - 1)
            if temperature == 0:
                codes = probabilities.argmax(-1)
            if config.order == "confidence":
                score = probabilities.gather(-1, codes.unsqueeze(-1)).squeeze(-1).log()
                noise = torch.rand(cells, generator=generators[row])
                noise = -torch.log(-torch.log(noise.clamp(min=torch.finfo(torch.float32).tiny)))
                scale = noise_at(config.noise_schedule, config.choice_temperature, step, len(plan))
                score += scale * noise
            else:
                score = -places[row]
            score[tokens[row] != codebook_size] = -torch.inf
            chosen = score.topk(plan[step]).indices
            tokens[row, chosen] = codes[chosen]
        yield tokens.view(shape)


def plain_images(
    steps: Iterator[Tensor], decode: Callable[[Tensor], Tensor], codebook_size: int
) -> Iterator[Tensor]:
    """Yield the images of every step; cells that are still masked show code 0.

    Args:
        steps: token grids, int64 (B, h, w), in [0, K].
        decode: tokens to images float32 (B, 3, H, W).
        codebook_size: K.
    """
    for tokens in steps:
        yield decode(tokens.masked_fill(tokens == codebook_size, 0))


def _plain_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def _places(order: str, grid: Sequence[int], generator: torch.Generator) -> Tensor:
    rows, columns = grid
    make = ORDERS[order].cells
    cells = torch.arange(rows * columns) if make is None else make((rows, columns), generator)
    places = torch.empty(rows * columns)
    places[cells] = torch.arange(rows * columns, dtype=torch.float32)
    return places


def _temperature(config: SamplingConfig, step: int, plan: Sequence[int]) -> float:
    first, last = config.first_step_temperature, config.last_step_temperature
    return temperature_at(config.temperature, step, len(plan), first=first, last=last)


def _scale(config: SamplingConfig, step: int, plan: Sequence[int]) -> float:
    if step >= len(plan):
        return 1.0
    share = sum(plan[: step + 1]) / sum(plan)
    schedule, scale = config.guidance_schedule, config.guidance_scale
    return guidance_at(schedule, scale, step, len(plan), share, config.guidance_power)
