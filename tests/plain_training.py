"""A plain training loop, which the real one is compared with: the same mathematics, nothing saved.

One parameter after another, the textbook form of the orthogonalisation, losses over all positions.
Given the same network, settings and batches it learns the same, so the comparison is between two
ways to compute one thing. It is kept simple on purpose: do not make it faster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core import TokenizerTrainConfig, TrainConfig
from maskgit_core.data.photos import WHOLE, Part, Photos
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.training.loop import rate_factor
from maskgit_core.training.optim import (
    NEWTON_SCHULZ,
    NEWTON_SCHULZ_STEPS,
    MuonAdamW,
    build_optimizer,
)
from maskgit_core.training.tokenizer_stage import TokenizerStage
from maskgit_core.training.transformer_stage import TransformerStage


def plain_orthogonalize(matrix: Tensor) -> Tensor:
    """Return what `optim.orthogonalize` does, step by step as published.

    Args:
        matrix: float32 (rows, columns).

    Reference: Muon (Jordan et al. 2024); differs: float32 throughout, as in `optim`.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class PlainMuonAdamW(MuonAdamW):
    """The same optimizer with the textbook orthogonalisation."""

    orthogonalize = staticmethod(plain_orthogonalize)
    stacks_on_gpu = False


def plain_training(
    loss: Callable[[int], Tensor], network: nn.Module, config: TrainConfig
) -> Iterator[float]:
    """Train a network and yield the loss of every step, after it.

    Args:
        loss: of the batch of a step, counted from 0.
        network: trained in place.
        config: rates, lengths, clipping and the running mean.
    """
    ema = copy.deepcopy(network).requires_grad_(False)
    optimizer = build_optimizer(
        network,
        learning_rate=config.learning_rate,
        matrix_learning_rate=config.matrix_learning_rate,
        weight_decay=config.weight_decay,
        kind=PlainMuonAdamW,
    )
    for step in range(config.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_factor(step, config)
        optimizer.zero_grad()
        value = loss(step)
        value.backward()
        if config.grad_clip:
            nn.utils.clip_grad_norm_(network.parameters(), config.grad_clip)
        optimizer.step()
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, parameter in zip(ema.parameters(), network.parameters(), strict=True):
                mean.mul_(decay).add_(parameter, alpha=1 - decay)
        yield value.item()


class PlainTransformerStage(TransformerStage):
    """The same step in the plain way: logits and cross-entropy over all positions."""

    def loss(self, step: int, part: Part = WHOLE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy at the masked positions."""
        tokens, labels, targets, token_mask, _ = self._batch(step, part)
        logits = self.model(tokens, labels)
        wanted = targets.masked_fill(~token_mask, -100)
        smoothing = self.config.label_smoothing
        loss = F.cross_entropy(logits.transpose(1, 2), wanted, label_smoothing=smoothing)
        return loss, {}


class PlainTokenizerStage(TokenizerStage):
    """The same step in the plain way: images as they come, no measures."""

    def __init__(self, model: VQTokenizer, photos: Photos, config: TokenizerTrainConfig) -> None:
        super().__init__(model, photos, None, config)
        model.to(memory_format=torch.contiguous_format)

    def loss(self, step: int, part: Part = WHOLE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of pixels and codes."""
        images, config = self._batch(step, part).contiguous(), self.config
        output, quantized = self.model(images)
        loss = config.l1_weight * F.l1_loss(output, images)
        loss = loss + config.l2_weight * F.mse_loss(output, images)
        code_loss = quantized.codebook_loss + config.commit_weight * quantized.commit_loss
        return loss + code_loss, {}
