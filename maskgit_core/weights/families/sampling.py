"""How the authors of published weights sample them, by what tells the weights of a family apart.

One entry a published size and resolution; the guidance scale is s = 1 + w for an author's weight w.
Needs no torch: the table of known weights reads it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from maskgit_core.config import SamplingConfig

BEST = "Best"


@dataclass(frozen=True)
class PublishedSampling:
    """Settings for published weights.

    Attributes:
        usual: of the published number, or of its cheapest where there are several.
        presets: more of them, by name.
    """

    usual: SamplingConfig
    presets: Mapping[str, SamplingConfig] = field(default_factory=dict)


_HALTON = SamplingConfig(
    num_steps=32,
    order="halton",
    schedule="arccos",
    guidance_scale=2.0,
    guidance_schedule="constant",
    first_step_temperature=2.0,
)
# (tokens a side, width) -> w
_HALTON_WEIGHTS = {
    (16, 384): 1.5,  # 256 pixels: tiny
    (16, 512): 1.0,  # small
    (16, 768): 0.7,  # base
    (24, 512): 1.0,  # 384 pixels: small
    (24, 768): 0.7,  # base
    (24, 1024): 0.5,  # large
}


def halton_sampling(grid_size: int, width: int) -> PublishedSampling:
    """Return the settings of Halton-MaskGIT's evaluation (Besnier et al. 2025).

    The logits of the first step are halved there. Other sizes get those of `small`.
    """
    weight = _HALTON_WEIGHTS.get((grid_size, width), 1.0)
    return PublishedSampling(replace(_HALTON, guidance_scale=1 + weight))


_V1 = {
    16: SamplingConfig(
        num_steps=8,
        schedule="arccos_increments",
        guidance_scale=4.0,
        guidance_schedule="linear",
        choice_temperature=4.5,
        noise_schedule="endpoints",
    ),
    32: SamplingConfig(
        num_steps=15,
        schedule="arccos_increments",
        guidance_scale=3.8,
        guidance_schedule="linear",
        choice_temperature=7.0,
        noise_schedule="endpoints",
    ),
}


def v1_sampling(grid_size: int) -> PublishedSampling:
    """Return the settings of the v1.0 reproduction (Besnier and Chen 2023), of 256 or 512 pixels.

    Other grids get those of the nearer one.
    """
    return PublishedSampling(_V1[32 if grid_size > 24 else 16])


_UNGUIDED = SamplingConfig(guidance_scale=1.0, guidance_schedule="constant")
_GOOGLE = {
    16: PublishedSampling(
        replace(_UNGUIDED, num_steps=8),
        # FID 4.92 with these weights (ReMDM, Wang et al. 2025), against 6.06 in 8 steps.
        {BEST: replace(_UNGUIDED, num_steps=32, schedule="linear")},
    ),
    32: PublishedSampling(replace(_UNGUIDED, num_steps=12)),
}


def google_sampling(grid_size: int) -> PublishedSampling:
    """Return the settings of the original MaskGIT (Chang et al. 2022), of 256 or 512 pixels."""
    return _GOOGLE[32 if grid_size > 24 else 16]


def _maskbit(steps: int, weight: float, power: float, noise: float) -> SamplingConfig:
    return SamplingConfig(
        num_steps=steps,
        schedule="arccos_floor",
        guidance_scale=1 + weight,
        guidance_schedule="power_cosine",
        guidance_power=power,
        choice_temperature=noise,
    )


_MASKBIT = {
    10: PublishedSampling(_maskbit(64, 6.4, 2.5, 10.5)),
    12: PublishedSampling(_maskbit(64, 7.1, 3.0, 8.2)),
    14: PublishedSampling(
        _maskbit(64, 7.1, 3.0, 7.8),
        {
            "128 steps": _maskbit(128, 7.1, 3.0, 9.0),
            BEST: _maskbit(256, 5.8, 3.0, 10.3),
        },
    ),
    16: PublishedSampling(_maskbit(64, 6.5, 2.5, 7.5)),
    18: PublishedSampling(_maskbit(64, 5.7, 2.5, 8.5)),
}


def maskbit_sampling(bits: int) -> PublishedSampling:
    """Return the settings of MaskBit's generators (Weber et al. 2024); others get the nearest's."""
    return _MASKBIT[min(_MASKBIT, key=lambda known: abs(known - bits))]
