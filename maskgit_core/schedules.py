"""How many tokens a decoding step reveals, and how strongly it is guided; pure functions.

The mask ratio is gamma(r) of MaskGIT (Chang et al. 2022, arXiv:2202.04200), section 3.3.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from maskgit_core.config import GUIDANCE_SCHEDULES, SCHEDULES, check_choice, check_range

Number = TypeVar("Number", float, Tensor)


def mask_ratio(schedule: str, r: Number) -> Number:
    """Return gamma(r), the share of tokens still masked at progress r.

    Args:
        schedule: `cosine` cos(pi r / 2), `arccos` arccos(r) / (pi / 2), `linear` 1 - r,
            `square` 1 - r ** 2 or `root` 1 - sqrt(r).
        r: progress in [0, 1]; a float, or a floating-point tensor of any shape.

    Returns:
        Of the kind and shape of r, in [0, 1]: exactly 1 at r = 0 and exactly 0 at r = 1.

    Raises:
        ValueError: an unknown schedule, or an r outside [0, 1].

    Reference:
        MaskGIT (Chang et al. 2022), section 3.3, for all but `arccos`, which is the schedule of
        Halton-MaskGIT (Besnier et al. 2025). The names mean other curves in some public code.
    """
    check_choice("schedule", schedule, SCHEDULES)
    if not isinstance(r, Tensor):
        check_range("r", r, 0.0, 1.0)
        return float(_gamma(schedule, torch.tensor(r, dtype=torch.float64)))
    if not r.is_floating_point():
        raise ValueError(f"r must be a floating-point tensor; got {r.dtype}")
    if not bool(((r >= 0) & (r <= 1)).all()):
        raise ValueError("r must lie in [0, 1]; got a tensor with values outside")
    # Half a precision does not reach pi / 2.
    return _gamma(schedule, r.float() if r.dtype.itemsize < 4 else r).to(r.dtype)


def _gamma(schedule: str, r: Tensor) -> Tensor:
    if schedule == "cosine":
        ratio = torch.cos(r * (math.pi / 2))
    elif schedule == "arccos":
        ratio = torch.arccos(r) / (math.pi / 2)
    elif schedule == "linear":
        ratio = 1 - r
    elif schedule == "square":
        ratio = 1 - r**2
    else:
        ratio = 1 - torch.sqrt(r)
    # cos(pi / 2) is 6e-17 in floating point, and arccos may exceed pi / 2 by a rounding.
    return torch.where(r >= 1, torch.zeros_like(ratio), ratio).clamp(0, 1)


def reveal_counts(schedule: str, num_unknown: int, num_steps: int) -> list[int]:
    """Return how many tokens each step reveals.

    After step s (from 0) of T, floor(K gamma((s + 1) / T)) of the K unknown tokens stay masked,
    moved where needed so that this step and every later one reveals at least one. `arccos`
    rounds the other way (the revealed tokens are rounded down).

    Args:
        schedule: as in `mask_ratio`.
        num_unknown: K, tokens to reveal, 0 or more.
        num_steps: T, steps asked for, 1 or more; more than K is the same as K.

    Returns:
        min(T, K) counts of at least 1 that sum to K; an empty list where K is 0.

    Raises:
        ValueError: an unknown schedule, or a number out of range.

    Reference:
        `cosine` gives the counts of MaskGIT's published decoder, whose last step keeps one masked
        token on paper but returns the step's full draw; `arccos` gives those of Halton-MaskGIT
        (Besnier et al. 2025). Both evaluate gamma in float32, which decides where K gamma is
        whole: cos(pi / 3) comes out just below one half. The per-step tables of other public
        decoders under the same names differ.
    """
    check_choice("schedule", schedule, SCHEDULES)
    check_range("num_unknown", num_unknown, 0, whole=True)
    check_range("num_steps", num_steps, 1, whole=True)
    num_steps = min(num_steps, num_unknown)
    counts: list[int] = []
    masked = num_unknown
    for step in range(num_steps):
        share = _gamma_float32(schedule, (step + 1) / num_steps)
        if schedule == "arccos":
            target = num_unknown - math.floor(_float32(num_unknown * _float32(1 - share)))
        else:
            target = math.floor(_float32(num_unknown * share))
        later_steps = num_steps - step - 1
        target = max(min(target, masked - 1), later_steps)
        if later_steps == 0:
            target = 0
        counts.append(masked - target)
        masked = target
    return counts


def _float32(value: float) -> float:
    return torch.tensor(value, dtype=torch.float32).item()


def _gamma_float32(schedule: str, r: float) -> float:
    """Gamma with its argument and its result rounded to float32, the same on every machine."""
    if schedule == "cosine":
        return 0.0 if r >= 1 else _float32(math.cos(_float32(math.pi / 2 * r)))
    if schedule == "arccos":
        return _float32(_float32(math.acos(_float32(r))) / _float32(math.pi / 2))
    return _float32(mask_ratio(schedule, r))


def guidance_at(
    guidance_schedule: str, scale: float, step: int, num_steps: int, revealed_share: float
) -> float:
    """Return the guidance scale s of one step, in uncond + s * (cond - uncond).

    Args:
        guidance_schedule: `constant`: the scale throughout. `linear`: from 1 at the first step to
            the scale at the last. `cosine`: the same along half a cosine wave. `revealed`: by the
            share of tokens revealed.
        scale: the scale asked for; 1 is off.
        step: 0-based, below num_steps.
        num_steps: steps in all.
        revealed_share: share of the unknown tokens revealed once this step is done, in [0, 1];
            read by `revealed` only.

    Returns:
        The scale; the one asked for at the last step, and where there is only one step.

    Raises:
        ValueError: an unknown schedule, or a number out of range.

    Reference:
        Classifier-free guidance (Ho and Salimans 2022) in the form where 1 is off; `revealed` is
        the rule of MAR (Li et al. 2024).
    """
    check_choice("guidance_schedule", guidance_schedule, GUIDANCE_SCHEDULES)
    check_range("num_steps", num_steps, 1, whole=True)
    check_range("step", step, 0, num_steps - 1, whole=True)
    check_range("revealed_share", revealed_share, 0.0, 1.0)
    progress = step / (num_steps - 1) if num_steps > 1 else 1.0
    if guidance_schedule == "constant":
        weight = 1.0
    elif guidance_schedule == "linear":
        weight = progress
    elif guidance_schedule == "cosine":
        weight = (1 - math.cos(math.pi * progress)) / 2
    else:
        weight = revealed_share
    return float(scale) if weight == 1 else 1 + (scale - 1) * weight
