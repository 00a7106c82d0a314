"""How many tokens a decoding step reveals, how strongly it is guided, and how much chance it has.

Pure functions and their tables: one more schedule is one entry in `SCHEDULES`,
`GUIDANCE_SCHEDULES` or `NOISE_SCHEDULES`, where settings, commands and page take their words from.
The mask ratio is gamma(r) of MaskGIT (Chang et al. 2022, arXiv:2202.04200), section 3.3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from maskgit_core.checks import check_choice, check_range

if TYPE_CHECKING:
    from torch import Tensor

Number = TypeVar("Number", float, "Tensor")
Counts = Callable[[int, int], list[int]]


@dataclass(frozen=True)
class Schedule:
    """How many tokens each step reveals.

    Attributes:
        info: one sentence on it.
        gamma: progress r, a floating-point tensor in [0, 1], to the share still masked.
        counts: (K tokens, T steps, at most K) to T numbers of at least 1 that sum to K.
    """

    info: str
    gamma: Callable[[Tensor], Tensor]
    counts: Counts


@dataclass(frozen=True)
class GuidanceSchedule:
    """How guidance grows over the steps.

    Attributes:
        info: one sentence on it.
        weight: (step from 0, T steps, share revealed once the step is done, power) to f in
            1 + (scale - 1) * f.
    """

    info: str
    weight: Callable[[int, int, float, float], float]


@dataclass(frozen=True)
class NoiseSchedule:
    """How the noise on the confidence falls over the steps.

    Attributes:
        info: one sentence on it.
        share: (step from 0, T steps) to the share of the choice temperature; 0 at the last step.
    """

    info: str
    share: Callable[[int, int], float]


def mask_ratio(schedule: str, r: Number) -> Number:
    """Return gamma(r), the share of tokens still masked at progress r.

    Args:
        schedule: one of `SCHEDULES`: `cosine` cos(pi r / 2), `arccos` and `arccos_floor`
            arccos(r) / (pi / 2), `linear` 1 - r, `square` 1 - r ** 2, `root` 1 - sqrt(r), or
            `arccos_increments`, what is left of the integral of arccos(1 - r).
        r: progress in [0, 1]; a float, or a floating-point tensor of any shape.

    Returns:
        Of the kind and shape of r, in [0, 1]: exactly 1 at r = 0 and exactly 0 at r = 1.

    Raises:
        ValueError: an unknown schedule, or an r outside [0, 1].

    Reference:
        MaskGIT (Chang et al. 2022), section 3.3, for all but the arccos ones: `arccos` is the
        schedule of Halton-MaskGIT (Besnier et al. 2025), `arccos_floor` that of MaskBit (Weber et
        al. 2024), `arccos_increments` that of the v1.0 PyTorch reproduction (Besnier and Chen
        2023). The names mean other curves in some public code.
    """
    import torch

    check_choice("schedule", schedule, SCHEDULES)
    if not isinstance(r, torch.Tensor):
        check_range("r", r, 0.0, 1.0)
        return float(_gamma(schedule, torch.tensor(r, dtype=torch.float64)))
    if not r.is_floating_point():
        raise ValueError(f"r must be a floating-point tensor; got {r.dtype}")
    if not bool(((r >= 0) & (r <= 1)).all()):
        raise ValueError("r must lie in [0, 1]; got a tensor with values outside")
    # Half a precision does not reach pi / 2.
    return _gamma(schedule, r.float() if r.dtype.itemsize < 4 else r).to(r.dtype)


def _gamma(schedule: str, r: Tensor) -> Tensor:
    ratio = SCHEDULES[schedule].gamma(r)
    # cos(pi / 2) is 6e-17 in floating point, and arccos may exceed pi / 2 by a rounding.
    return ratio.masked_fill(r >= 1, 0.0).clamp(0, 1)


def reveal_counts(schedule: str, num_unknown: int, num_steps: int) -> list[int]:
    """Return how many tokens each step reveals.

    After step s (from 0) of T, floor(K gamma((s + 1) / T)) of the K unknown tokens stay masked,
    moved where needed so that this step and every later one reveals at least one. `arccos`
    rounds the other way (the revealed tokens are rounded down); `arccos_increments` makes the
    numbers themselves grow like arccos(1 - s / (T - 1)).

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
        token on paper but returns the step's full draw; all but `arccos` and `arccos_increments`
        give those of MaskBit's (Weber et al. 2024); `arccos` gives those of Halton-MaskGIT
        (Besnier et al. 2025), `arccos_increments` those that the v1.0 reproduction calls arccos.
        All evaluate gamma in float32, which decides where K gamma is whole: cos(pi / 3) comes out
        just below one half. The per-step tables of other public decoders under the same names
        differ.
    """
    check_choice("schedule", schedule, SCHEDULES)
    check_range("num_unknown", num_unknown, 0, whole=True)
    check_range("num_steps", num_steps, 1, whole=True)
    return SCHEDULES[schedule].counts(num_unknown, min(num_steps, num_unknown))


def _float32(value: float) -> float:
    """Round to float32, the same on every machine."""
    return struct.unpack("f", struct.pack("f", value))[0]


def _cosine_float32(r: float) -> float:
    return 0.0 if r >= 1 else _float32(math.cos(_float32(math.pi / 2 * r)))


def _arccos_float32(r: float) -> float:
    return _float32(_float32(math.acos(_float32(r))) / _float32(math.pi / 2))


def _counts_of(share: Callable[[float], float], *, revealed_down: bool = False) -> Counts:
    """Return the counts that follow a mask ratio.

    Args:
        share: gamma, its result rounded to float32.
        revealed_down: round the revealed tokens down in place of the masked ones.
    """

    def counts(num_unknown: int, num_steps: int) -> list[int]:
        masked, found = num_unknown, []
        for step in range(num_steps):
            gamma = _float32(share((step + 1) / num_steps))
            if revealed_down:
                target = num_unknown - math.floor(_float32(num_unknown * _float32(1 - gamma)))
            else:
                target = math.floor(_float32(num_unknown * gamma))
            later_steps = num_steps - step - 1
            target = max(min(target, masked - 1), later_steps) if later_steps else 0
            found.append(masked - target)
            masked = target
        return found

    return counts


def _increments(num_unknown: int, num_steps: int) -> list[int]:
    """Return counts in proportion to arccos(1 - s / (T - 1)), the rest in the last step."""
    if num_steps < 2:
        return [num_unknown] * num_steps
    sizes = [_arccos_float32(1 - step / (num_steps - 1)) for step in range(num_steps)]
    total = _float32(sum(sizes))
    counts = [max(1, round(_float32(_float32(size / total) * num_unknown))) for size in sizes]
    counts[-1] += num_unknown - sum(counts)
    # Of few tokens the ones that were rounded up are too many for the last step to settle.
    while counts[-1] < 1:
        counts[counts.index(max(counts))] -= 1
        counts[-1] += 1
    return counts


SCHEDULES: dict[str, Schedule] = {
    "cosine": Schedule(
        "slow at first, fast at the end",
        lambda r: (r * (math.pi / 2)).cos(),
        _counts_of(_cosine_float32),
    ),
    "arccos": Schedule(
        "even at first, many in the last steps",
        lambda r: r.arccos() / (math.pi / 2),
        _counts_of(_arccos_float32, revealed_down=True),
    ),
    "linear": Schedule("the same number each step", lambda r: 1 - r, _counts_of(lambda r: 1 - r)),
    "square": Schedule(
        "slow at first, then steadily more", lambda r: 1 - r**2, _counts_of(lambda r: 1 - r**2)
    ),
    "root": Schedule(
        "most in the first steps",
        lambda r: 1 - r.sqrt(),
        _counts_of(lambda r: 1 - math.sqrt(r)),
    ),
    "arccos_floor": Schedule(
        "arccos as MaskBit rounds it",
        lambda r: r.arccos() / (math.pi / 2),
        _counts_of(_arccos_float32),
    ),
    "arccos_increments": Schedule(
        "one at first, then numbers that grow like arccos",
        lambda r: 1 - ((2 * r - r**2).sqrt() - (1 - r) * (1 - r).arccos()),
        _increments,
    ),
}


def guidance_at(
    guidance_schedule: str,
    scale: float,
    step: int,
    num_steps: int,
    revealed_share: float,
    power: float = 1.0,
) -> float:
    """Return the guidance scale s of one step, in uncond + s * (cond - uncond).

    Args:
        guidance_schedule: one of `GUIDANCE_SCHEDULES`. `constant`: the scale throughout.
            `linear`: from 1 at the first step to the scale at the last. `cosine`: the same along
            half a cosine wave. `revealed`: by the share of tokens revealed. `elapsed`: by the
            share of steps that are done, so that the scale itself is never reached.
            `power_cosine`: half a cosine wave over that share to a power, late and steep.
        scale: the scale asked for; 1 is off.
        step: 0-based, below num_steps.
        num_steps: steps in all.
        revealed_share: share of the unknown tokens revealed once this step is done, in [0, 1];
            read by `revealed` only.
        power: read by `power_cosine` only.

    Returns:
        The scale; for the first four the one asked for at the last step, and where there is only
        one step.

    Raises:
        ValueError: an unknown schedule, or a number out of range.

    Reference:
        Classifier-free guidance (Ho and Salimans 2022) in the form where 1 is off; `revealed` is
        the rule of MAR (Li et al. 2024); `elapsed` and `power_cosine` are those of MaskBit (Weber
        et al. 2024), whose weight w is s - 1.
    """
    check_choice("guidance_schedule", guidance_schedule, GUIDANCE_SCHEDULES)
    check_range("num_steps", num_steps, 1, whole=True)
    check_range("step", step, 0, num_steps - 1, whole=True)
    check_range("revealed_share", revealed_share, 0.0, 1.0)
    entry = GUIDANCE_SCHEDULES[guidance_schedule]
    weight = entry.weight(step, num_steps, revealed_share, power)
    return float(scale) if weight == 1 else 1 + (scale - 1) * weight


def _progress(step: int, num_steps: int) -> float:
    """Return 0 at the first step and 1 at the last, which one step alone is."""
    return step / (num_steps - 1) if num_steps > 1 else 1.0


GUIDANCE_SCHEDULES: dict[str, GuidanceSchedule] = {
    "constant": GuidanceSchedule("the same throughout", lambda *_: 1.0),
    "linear": GuidanceSchedule(
        "evenly, from none to all", lambda step, steps, share, power: _progress(step, steps)
    ),
    "cosine": GuidanceSchedule(
        "gently at both ends",
        lambda step, steps, share, power: (1 - math.cos(math.pi * _progress(step, steps))) / 2,
    ),
    "revealed": GuidanceSchedule(
        "with the share that is revealed", lambda step, steps, share, power: share
    ),
    "elapsed": GuidanceSchedule(
        "evenly, and never quite all", lambda step, steps, share, power: step / steps
    ),
    "power_cosine": GuidanceSchedule(
        "late and steeply",
        lambda step, steps, share, power: (1 - math.cos(math.pi * (step / steps) ** power)) / 2,
    ),
}


def noise_at(noise_schedule: str, choice_temperature: float, step: int, num_steps: int) -> float:
    """Return the scale of the Gumbel noise on the confidence at one step.

    Args:
        noise_schedule: one of `NOISE_SCHEDULES`. `remaining`: the share of steps that are left
            after this one, of MaskGIT (Chang et al. 2022) and MaskBit. `endpoints`: all at the
            first step, of the v1.0 reproduction.
        choice_temperature: the scale asked for.
        step: 0-based, below num_steps.
        num_steps: steps in all.

    Returns:
        The scale; 0 at the last step.

    Raises:
        ValueError: an unknown schedule, or a number out of range.
    """
    check_choice("noise_schedule", noise_schedule, NOISE_SCHEDULES)
    check_range("num_steps", num_steps, 1, whole=True)
    check_range("step", step, 0, num_steps - 1, whole=True)
    return choice_temperature * NOISE_SCHEDULES[noise_schedule].share(step, num_steps)


NOISE_SCHEDULES: dict[str, NoiseSchedule] = {
    "remaining": NoiseSchedule(
        "falls evenly, the first step a little below the whole",
        lambda step, steps: 1 - (step + 1) / steps,
    ),
    "endpoints": NoiseSchedule(
        "falls evenly from the whole at the first step",
        lambda step, steps: 1 - _progress(step, steps),
    ),
}


def temperature_at(
    temperature: float, step: int, num_steps: int, *, first: float = 1.0, last: float = 1.0
) -> float:
    """Return what divides the logits at one step.

    Args:
        temperature: of all steps, where the two below are 1.
        step: 0-based, below num_steps.
        num_steps: steps in all.
        first: multiple in the first step only; 2 in Halton-MaskGIT (Besnier et al. 2025).
        last: multiple in the last step, to which it falls or rises in a line, last + (1 - last) *
            (1 - r) with r = (step + 1) / num_steps; 0 with a temperature of 6 in ENAT (Ni et al.
            2024), 0.5 / 1.3 with 1.3 in MaskBit's annealing.
    """
    changed = temperature * (last + (1 - last) * (1 - (step + 1) / num_steps))
    return changed * first if step == 0 else changed
