"""Drawing one code a cell from logits: temperature, top-k, top-p, inverse cumulative draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_ALTERNATIVES = 5
# Cells are drawn in pieces of about this many numbers, for any grid and codebook: each of the few
# tensors below has 64 MB, on a CPU 2, which its cache holds.
_PIECE_NUMBERS, _CPU_PIECE_NUMBERS = 2**24, 2**19


@dataclass(frozen=True)
class Draw:
    """Codes drawn at M cells.

    Args:
        codes: int64 (M,), in [0, K).
        log_probs: float32 (M,), natural log of the probability of the code before top-k and top-p,
            at the temperature of the draw (at 1 where that is 0).
        logits: float32 (M, K), as given; what `alternatives` reads.
        temperature: of the draw.
    """

    codes: Tensor
    log_probs: Tensor
    logits: Tensor
    temperature: float

    def select(self, keep: Tensor) -> Draw:
        """Return the draw at the cells where keep, bool (M,), is True."""
        return Draw(self.codes[keep], self.log_probs[keep], self.logits[keep], self.temperature)

    def alternatives(self) -> tuple[Tensor, Tensor]:
        """Return ids int64 (M, A) and probabilities float32 (M, A) of the likeliest codes."""
        count = min(NUM_ALTERNATIVES, self.logits.shape[1])
        log_probs = _log_probs(self.logits, self.temperature)
        best, ids = log_probs.topk(count, dim=-1)
        return ids, best.exp()


def draw_codes(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Draw:
    """Draw one code a cell, a pure function of the logits and one uniform number a cell.

    Args:
        logits: float32 (M, K).
        uniform: float32 (M,), in [0, 1).
        temperature, top_k, top_p: as in `config.SamplingConfig`.

    Raises:
        ValueError: logits that are nan or infinite at a drawn cell.
    """
    numbers = _CPU_PIECE_NUMBERS if logits.device.type == "cpu" else _PIECE_NUMBERS
    piece = max(1, numbers // logits.shape[1])
    codes, chosen_log_probs = [], []
    for piece_logits, piece_uniform in zip(logits.split(piece), uniform.split(piece), strict=True):
        log_probs = _log_probs(piece_logits, temperature)
        if temperature == 0:
            code = log_probs.argmax(-1)
        else:
            code = _draw_piece(log_probs, piece_uniform, top_k, top_p)
        codes.append(code)
        chosen_log_probs.append(log_probs.gather(1, code[:, None])[:, 0])
    draw = Draw(torch.cat(codes), torch.cat(chosen_log_probs), logits, temperature)
    if not bool(torch.isfinite(draw.log_probs).all()):
        raise ValueError("logits_fn must return finite logits; got nan or infinity")
    return draw


def _log_probs(logits: Tensor, temperature: float) -> Tensor:
    if temperature not in (0, 1):
        # The best logit first becomes 0, so that a tiny temperature gives no infinity less
        # infinity; one that float32 rounds to 0 would still make 0 / 0 of it.
        smallest = torch.finfo(torch.float32).tiny
        logits = (logits - logits.amax(-1, keepdim=True)) / max(temperature, smallest)
    return torch.log_softmax(logits, dim=-1, dtype=torch.float32)


def _draw_piece(
    log_probs: Tensor, uniform: Tensor, top_k: int | None, top_p: float | None
) -> Tensor:
    num_codes, top_p = log_probs.shape[1], top_p or 1.0
    num_kept = min(top_k or num_codes, num_codes)
    if num_kept == num_codes and top_p == 1:
        return _inverse_cumulative(log_probs.exp(), uniform)
    kept, ids = log_probs.topk(num_kept, dim=-1)
    probs = kept.softmax(-1)
    if top_p < 1:
        # A code stays while the likelier ones hold less than top_p; the best one always does.
        likelier = probs.cumsum(-1) - probs
        probs = probs.masked_fill(likelier >= top_p, 0.0)
    return ids.gather(1, _inverse_cumulative(probs, uniform)[:, None])[:, 0]


def _inverse_cumulative(probs: Tensor, uniform: Tensor) -> Tensor:
    """Return the index at which the cumulative sum of each row passes uniform times its total."""
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1]
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    index = index.clamp_max(probs.shape[1] - 1)
    # A parallel cumulative sum may rise by a rounding at a code of probability 0.
    possible = probs.gather(1, index[:, None])[:, 0] > 0
    if bool(possible.all()):
        return index
    return torch.where(possible, index, probs.argmax(-1))
