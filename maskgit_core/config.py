"""Frozen settings of the networks, of decoding and of training, checked when they are built.

Every setting is a plain number or word, so a configuration is also a JSON object. Unknown keys are
errors that name the nearest known key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from maskgit_core.checks import check_choice, check_flag, check_range
from maskgit_core.orders import ORDERS
from maskgit_core.schedules import GUIDANCE_SCHEDULES, NOISE_SCHEDULES, SCHEDULES

TRANSFORMER_KINDS = ("class_token", "adaln")
TRAIN_PRECISIONS = ("auto", "float32", "bf16")
PRECISIONS = ("float32", "bfloat16", "int8")  # of the transformer while decoding
MASK_SCHEDULES = ("cosine", "arccos", "truncated", "beta")
CRITICS = ("patches", "features")
SHARDINGS = ("none", "full")
MAX_SEED = 2**63 - 1
MAX_BLOCKS = 1000  # of a network: a slip of the keyboard should not build a million

T = TypeVar("T")


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
    """Shape of the convolutional VQ tokenizer.

    Args:
        image_size: pixels a side; a multiple of `patch_stride`.
        widths: channels of each resolution, finest first. The finest runs at half the image's
            resolution, every further one halves again, so `patch_stride` is 2 ** len(widths).
        encoder_blocks, decoder_blocks: residual blocks at each resolution, finest first.
        codebook_size: K, number of codes.
        codebook_dim: length of a codebook vector.
        l2_normalize: compare latents and codes on the unit sphere (ViT-VQGAN, Yu et al. 2022).
    """

    image_size: int = 96
    widths: tuple[int, ...] = (64, 128, 256)
    encoder_blocks: tuple[int, ...] = (1, 1, 1)
    decoder_blocks: tuple[int, ...] = (1, 2, 3)
    codebook_size: int = 1024
    codebook_dim: int = 16
    l2_normalize: bool = True

    def __post_init__(self) -> None:
        check_range("codebook_size", self.codebook_size, 2, whole=True)
        check_range("codebook_dim", self.codebook_dim, 1, whole=True)
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
        check_flag("l2_normalize", self.l2_normalize)
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
    """Shape of a masked transformer.

    Args:
        codebook_size: K; the mask token id is K.
        num_classes: classes; the null label is num_classes.
        grid_size: tokens a side.
        width: D, length of a token's vector.
        depth: number of blocks.
        num_heads: attention heads; a head is width // num_heads wide.
        mlp_width: hidden units of a block's MLP.
        dropout: probability, in training only.
        kind: `class_token` (MaskedTransformer) or `adaln` (AdaLNMaskedTransformer).
        num_registers: extra tokens without a meaning of their own (`adaln` only).
        merge: side of the square of tokens that runs through the blocks as one (`adaln` only).
    """

    codebook_size: int = 1024
    num_classes: int = 11
    grid_size: int = 12
    width: int = 256
    depth: int = 8
    num_heads: int = 4
    mlp_width: int = 1024
    dropout: float = 0.0
    kind: str = "class_token"
    num_registers: int = 1
    merge: int = 1

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, TRANSFORMER_KINDS)
        for name in ("num_classes", "grid_size", "width", "num_heads", "mlp_width"):
            check_range(name, getattr(self, name), 1, whole=True)
        check_range("depth", self.depth, 1, MAX_BLOCKS, whole=True)
        check_range("codebook_size", self.codebook_size, 2, whole=True)
        check_range("num_registers", self.num_registers, 0, whole=True)
        check_range("merge", self.merge, 1, whole=True)
        if self.grid_size % self.merge:
            raise ValueError(f"merge must divide grid_size {self.grid_size}; got {self.merge}")
        check_range("dropout", self.dropout, 0.0, 0.99)
        if self.num_heads > self.width:
            raise ValueError(f"num_heads must not exceed width {self.width}; got {self.num_heads}")

    @property
    def num_tokens(self) -> int:
        """N, number of cells of the grid."""
        return self.grid_size**2


def _setting(default: Any, help: str, **option: Any) -> Any:
    """Return a field that says in `metadata` what an option of a command needs to know."""
    return field(default=default, metadata={"help": help, **option})


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

    num_steps: int = _setting(12, "decoding steps", type=int)
    order: str = _setting("confidence", "reveal order", choices=ORDERS)
    schedule: str = _setting("cosine", "tokens a step", choices=SCHEDULES)
    temperature: float = _setting(1.0, "divides the logits", type=float)
    guidance_scale: float = _setting(3.0, "pull of the class; 1 is off", type=float)
    guidance_schedule: str = _setting("linear", "its growth", choices=GUIDANCE_SCHEDULES)
    choice_temperature: float = _setting(4.5, "noise on the confidence", type=float)
    top_k: int | None = _setting(None, "keep the k likeliest codes", type=int)
    top_p: float | None = _setting(None, "keep this share of probability", type=float)
    guidance_power: float = _setting(3.0, "how late guidance power_cosine grows", type=float)
    noise_schedule: str = _setting("remaining", "fall of the noise", choices=NOISE_SCHEDULES)
    first_step_temperature: float = _setting(
        1.0, "of the first step, in multiples of what it would be", type=float
    )
    last_step_temperature: float = _setting(
        1.0, "of the last step, in multiples of --temperature", type=float
    )

    def __post_init__(self) -> None:
        check_range("num_steps", self.num_steps, 1, whole=True)
        check_choice("order", self.order, ORDERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("guidance_schedule", self.guidance_schedule, GUIDANCE_SCHEDULES)
        for name in ("temperature", "first_step_temperature", "last_step_temperature"):
            check_range(name, getattr(self, name), 0.0, 100.0)
        check_range("guidance_scale", self.guidance_scale, 0.0, 100.0)
        check_range("guidance_power", self.guidance_power, 0.0, 20.0)
        check_choice("noise_schedule", self.noise_schedule, NOISE_SCHEDULES)
        check_range("choice_temperature", self.choice_temperature, 0.0, 1000.0)
        if self.top_k is not None:
            check_range("top_k", self.top_k, 1, whole=True)
        if self.top_p is not None:
            check_range("top_p", self.top_p, 0.0, 1.0)
            if self.top_p == 0:
                raise ValueError("top_p must be above 0 and at most 1; got 0")


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained; both commands share it.

    Args:
        max_steps: optimizer steps.
        batch_size: images a step, over all processes: what is learned does not depend on how many
            there are.
        accumulate_steps: parts of a process's share of the batch that are computed one after
            another, where the whole does not fit the memory.
        learning_rate: peak rate of AdamW, after a linear warm-up.
        matrix_learning_rate: peak rate of Muon on the weight matrices; 0 leaves them to AdamW.
        min_rate: share of the peak rate at the end of the cosine.
        warmup_steps: steps of linear warm-up.
        weight_decay: decoupled weight decay.
        grad_clip: largest gradient norm; 0 does not clip.
        ema_decay: decay of the running mean of the weights that is saved for use.
        seed: of every random number in training, in [0, 2**63).
        log_every: steps between log lines.
        sample_every: steps between sample sheets.
        save_every: steps between saved states and checkpoints.
        precision: `bf16` computes in bfloat16 and keeps weights in float32, on a GPU or CPU with
            instructions for it; `auto` is bf16 where a GPU has them, else `float32`.
        compile: compile the blocks with torch.compile; needs a compiler, and minutes at the start.
        checkpoint_blocks: compute the blocks again in the backward pass in place of keeping what
            they computed: slower, with less memory (transformer).
        shard: with several processes, `full` cuts weights, gradients, running mean and optimizer
            state among them: less memory each, more traffic between them (transformer).
        explode_factor: a step whose loss is above so many times its running mean is not taken; the
            run goes back to its last state with half the rate. 0 looks for nan and infinity only.
        label_smoothing: share of the target spread over all codes (transformer).
        class_drop: share of images trained without their class (transformer).
        token_drop: share of visible tokens replaced by the mask token though no loss is taken
            there (transformer).
        mask_schedule: how the share of hidden tokens is drawn, `cosine` (MaskGIT), `arccos`
            (Halton-MaskGIT), less often nearly all or nearly none, `truncated` (MAGE), never below
            half, or `beta`, Beta(12, 3), around 0.8 (transformer).
        l1_weight: of the mean absolute error of pixels (tokenizer).
        l2_weight: of the mean squared error of pixels (tokenizer).
        perceptual_weight: of the distance of image features; 0 needs no feature network.
        perceptual_scale: above 1, a random window of each image is enlarged so much before its
            features are taken, deep ones too: a classifier knows photos of more pixels.
        commit_weight: of the distance of latents to their codes (tokenizer).
        adversarial_weight: of the critic's loss, relative to the balance of both; 0 has no critic.
        adversarial_start: tokenizer steps before the critic has a say.
        critic: what the critic sees, `patches` of the image (PatchGAN) or `features`, the maps of
            the network of the perceptual loss (Projected GAN), which must be on.
        sampled_images: images a step that are decoded from tokens of a trained transformer and
            judged by the critic only, beside the batch (tokenizer, with freeze_codes).
        freeze_codes: train the decoder only, so that tokens keep their meaning.
        continuous_steps: tokenizer steps before quantisation starts.
        revive_every: tokenizer steps between revivals of dead codes; 0 revives none.
    """

    max_steps: int = 4000
    batch_size: int = 32
    accumulate_steps: int = 1
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 0.0
    min_rate: float = 0.02
    warmup_steps: int = 100
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    log_every: int = 20
    sample_every: int = 500
    save_every: int = 250
    precision: str = "auto"
    compile: bool = False
    checkpoint_blocks: bool = False
    shard: str = "none"
    explode_factor: float = 5.0
    label_smoothing: float = 0.1
    class_drop: float = 0.1
    token_drop: float = 0.0
    mask_schedule: str = "cosine"
    l1_weight: float = 1.0
    l2_weight: float = 1.0
    perceptual_weight: float = 0.0
    perceptual_scale: float = 1.0
    commit_weight: float = 0.25
    adversarial_weight: float = 0.0
    adversarial_start: int = 0
    critic: str = "patches"
    sampled_images: int = 0
    freeze_codes: bool = False
    continuous_steps: int = 200
    revive_every: int = 50

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "accumulate_steps"):
            check_range(name, getattr(self, name), 1, whole=True)
        for name in ("log_every", "sample_every", "save_every"):
            check_range(name, getattr(self, name), 1, whole=True)
        for name in ("warmup_steps", "continuous_steps", "revive_every", "adversarial_start"):
            check_range(name, getattr(self, name), 0, whole=True)
        check_range("sampled_images", self.sampled_images, 0, whole=True)
        if self.sampled_images and not (self.freeze_codes and self.adversarial_weight):
            raise ValueError(
                "sampled_images must be 0 without freeze_codes and an adversarial_weight; "
                f"got {self.sampled_images}"
            )
        check_range("seed", self.seed, 0, MAX_SEED, whole=True)
        for name in ("min_rate", "label_smoothing", "class_drop", "token_drop"):
            check_range(name, getattr(self, name), 0.0, 1.0)
        check_range("ema_decay", self.ema_decay, 0.0, 0.99999)
        for name in ("learning_rate", "matrix_learning_rate", "weight_decay", "grad_clip"):
            check_range(name, getattr(self, name), 0.0)
        for part in ("l1", "l2", "perceptual", "commit", "adversarial"):
            check_range(f"{part}_weight", getattr(self, f"{part}_weight"), 0.0)
        check_range("perceptual_scale", self.perceptual_scale, 1.0, 8.0)
        check_choice("critic", self.critic, CRITICS)
        if self.critic == "features" and not self.perceptual_weight:
            raise ValueError("critic must be patches where perceptual_weight is 0; got features")
        check_choice("mask_schedule", self.mask_schedule, MASK_SCHEDULES)
        check_choice("precision", self.precision, TRAIN_PRECISIONS)
        check_choice("shard", self.shard, SHARDINGS)
        if self.compile and self.shard != "none":
            raise ValueError("compile must be off where shard is full; the two are not joined yet")
        check_range("explode_factor", self.explode_factor, 0.0)
        for name in ("compile", "checkpoint_blocks", "freeze_codes"):
            check_flag(name, getattr(self, name))
