"""Frozen settings of the networks and of decoding, checked when they are built.

Every setting is a plain number or word, so a configuration is also a JSON object. Unknown keys are
errors that name the nearest known key. Those of training are in `training.settings`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from maskgit_core.checks import check_choice, check_flag, check_range
from maskgit_core.orders import ORDERS
from maskgit_core.schedules import GUIDANCE_SCHEDULES, NOISE_SCHEDULES, SCHEDULES

TRANSFORMER_KINDS = ("class_token", "adaln")
PRECISIONS = ("float32", "bfloat16", "int8")  # of the transformer while decoding
MAX_SEED = 2**63 - 1
MAX_BLOCKS = 1000  # of a network: a slip of the keyboard should not build a million

T = TypeVar("T")


def setting(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float = math.inf,
    choices: Collection[str] = (),
    kind: type | None = None,
) -> Any:
    """Return a dataclass field that knows what it means and what it may be.

    Args:
        default: its value where none is given; None allows None too.
        text: one sentence for the help of an option.
        low, high: bounds of a number, which `check_settings` keeps; None has none.
        choices: the words that are allowed; a table counts as it is when it is asked.
        kind: of its values, `bool`, `int`, `float` or `str`; that of the default if not given.
    """
    rule = {"help": text, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata={**rule, "kind": kind or type(default)})


def check_settings(config: Any) -> None:
    """Raise ValueError for the first field, made by `setting`, that is not as it says it may be."""
    for each in fields(config):
        value, rule = getattr(config, each.name), each.metadata
        if not rule or (value is None and each.default is None):
            continue
        if rule["choices"]:
            check_choice(each.name, value, rule["choices"])
        elif rule["kind"] is bool:
            check_flag(each.name, value)
        elif rule["low"] is not None:
            whole = rule["kind"] is int
            check_range(each.name, value, rule["low"], rule["high"], whole=whole)


def from_dict(config_class: type[T], values: Mapping[str, Any]) -> T:
    """Build a configuration from a JSON object.

    Raises:
        ValueError: no JSON object, an unknown key (named, with the nearest known one), or a value
            out of range.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{config_class.__name__} must be an object of settings; got {values!r}")
    known = [each.name for each in fields(config_class)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown setting {key!r} for {config_class.__name__}{hint}")
    return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def to_dict(config: Any) -> dict[str, Any]:
    """Return the configuration as a JSON-ready dict (tuples become lists)."""
    return {k: _plain(v) for k, v in asdict(config).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.item() if hasattr(value, "item") else value  # a number of numpy


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of the convolutional VQ tokenizer; its settings say what they are."""

    image_size: int = setting(96, "pixels a side, a multiple of the pixels a side of a token")
    widths: tuple[int, ...] = setting(
        (64, 128, 256),
        "channels of each resolution, finest first: the finest runs at half the image's resolution "
        "and every further one halves again, so a token is 2 ** len(widths) pixels a side",
    )
    encoder_blocks: tuple[int, ...] = setting(
        (1, 1, 1), "residual blocks of the encoder at each resolution, finest first"
    )
    decoder_blocks: tuple[int, ...] = setting(
        (1, 2, 3), "residual blocks of the decoder at each resolution, finest first"
    )
    codebook_size: int = setting(1024, "K, number of codes", low=2)
    codebook_dim: int = setting(16, "length of a codebook vector", low=1)
    l2_normalize: bool = setting(
        True, "compare latents and codes on the unit sphere (ViT-VQGAN, Yu et al. 2022)"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("widths", "encoder_blocks", "decoder_blocks"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list):
                raise ValueError(f"{name} must be a list of whole numbers; got {values!r}")
            object.__setattr__(self, name, tuple(values))
        if not self.widths:
            raise ValueError("widths must have at least one entry; got none")
        for width in self.widths:
            check_range("widths", width, 8, whole=True)
            if width % 8:
                raise ValueError(f"widths must be multiples of 8; got {width}")
        for name in ("encoder_blocks", "decoder_blocks"):
            blocks = getattr(self, name)
            if len(blocks) != len(self.widths):
                raise ValueError(
                    f"{name} must have one entry for each of the {len(self.widths)} widths; "
                    f"got {blocks}"
                )
            for number in blocks:
                check_range(name, number, 0, MAX_BLOCKS, whole=True)
        check_range("image_size", self.image_size, self.patch_stride, whole=True)
        if self.image_size % self.patch_stride:
            raise ValueError(
                f"image_size must be a multiple of {self.patch_stride}; got {self.image_size}"
            )

    @property
    def patch_stride(self) -> int:
        """Pixels a side of one token."""
        return 2 ** len(self.widths)

    @property
    def grid_size(self) -> int:
        """Tokens a side."""
        return self.image_size // self.patch_stride


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a masked transformer; its settings say what they are."""

    codebook_size: int = setting(1024, "K; the mask token id is K", low=2)
    num_classes: int = setting(11, "classes; the null label is num_classes", low=1)
    grid_size: int = setting(12, "tokens a side", low=1)
    width: int = setting(256, "D, length of a token's vector", low=1)
    depth: int = setting(8, "number of blocks", low=1, high=MAX_BLOCKS)
    num_heads: int = setting(4, "attention heads; a head is width // num_heads wide", low=1)
    mlp_width: int = setting(1024, "hidden units of a block's MLP", low=1)
    dropout: float = setting(0.0, "probability, in training only", low=0.0, high=0.99)
    kind: str = setting(
        "class_token",
        "`class_token` (MaskedTransformer) or `adaln` (AdaLNMaskedTransformer)",
        choices=TRANSFORMER_KINDS,
    )
    num_registers: int = setting(
        1, "extra tokens without a meaning of their own (`adaln` only)", low=0
    )
    merge: int = setting(
        1, "side of the square of tokens that runs through the blocks as one (`adaln` only)", low=1
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.grid_size % self.merge:
            raise ValueError(f"merge must divide grid_size {self.grid_size}; got {self.merge}")
        if self.num_heads > self.width:
            raise ValueError(f"num_heads must not exceed width {self.width}; got {self.num_heads}")

    @property
    def num_tokens(self) -> int:
        """N, number of cells of the grid."""
        return self.grid_size**2


@dataclass(frozen=True)
class SamplingConfig:
    """How a grid is decoded.

    Args:
        num_steps: decoding steps; more than there are unknown tokens is the same as that many.
        order: which cells are revealed first: `confidence`, `halton`, `random` or `raster`.
        schedule: how many tokens are revealed a step: `cosine`, `arccos`, `linear`, `square`,
            `root`, `arccos_floor`, `arccos_increments` (see `schedules.reveal_counts`).
        temperature: divides the logits; higher is more random, 0 takes the best code.
        guidance_scale: s in uncond + s * (cond - uncond); 1 is off.
        guidance_schedule: how s grows from 1: `constant`, `linear`, `cosine`, `revealed`,
            `elapsed`, `power_cosine` (see `schedules.guidance_at`).
        choice_temperature: scale of the Gumbel noise on the confidence, annealed to 0
            (order `confidence` only).
        top_k: draw from the k likeliest codes only; None is off.
        top_p: draw from the likeliest codes that hold this share of the probability; None is off.
        guidance_power: exponent of the guidance schedule `power_cosine` (only there).
        noise_schedule: how that noise falls: `remaining` or `endpoints` (see
            `schedules.noise_at`).
        first_step_temperature: of the first step, as a multiple of what it would be; 1 is off.
        last_step_temperature: of the last step, as a multiple of `temperature`, to which it falls
            or rises in a line (see `schedules.temperature_at`); 1 is off.

    Raises:
        ValueError: a value out of range, naming the argument, the value and what is allowed.
    """

    num_steps: int = setting(12, "decoding steps", low=1)
    order: str = setting("confidence", "reveal order", choices=ORDERS)
    schedule: str = setting("cosine", "tokens a step", choices=SCHEDULES)
    temperature: float = setting(1.0, "divides the logits", low=0.0, high=100.0)
    guidance_scale: float = setting(3.0, "pull of the class; 1 is off", low=0.0, high=100.0)
    guidance_schedule: str = setting("linear", "its growth", choices=GUIDANCE_SCHEDULES)
    choice_temperature: float = setting(4.5, "noise on the confidence", low=0.0, high=1000.0)
    top_k: int | None = setting(None, "keep the k likeliest codes", low=1, kind=int)
    top_p: float | None = setting(
        None, "keep this share of probability", low=0.0, high=1.0, kind=float
    )
    guidance_power: float = setting(3.0, "how late guidance power_cosine grows", low=0.0, high=20.0)
    noise_schedule: str = setting("remaining", "fall of the noise", choices=NOISE_SCHEDULES)
    first_step_temperature: float = setting(
        1.0, "of the first step, in multiples of what it would be", low=0.0, high=100.0
    )
    last_step_temperature: float = setting(
        1.0, "of the last step, in multiples of --temperature", low=0.0, high=100.0
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.top_p == 0:
            raise ValueError("top_p must be above 0 and at most 1; got 0")
