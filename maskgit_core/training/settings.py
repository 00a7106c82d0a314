"""The settings of training: what both stages share, and what each has of its own."""

from __future__ import annotations

from dataclasses import dataclass

from maskgit_core.config import MAX_SEED, check_settings, setting

PRECISIONS = ("auto", "float32", "bfloat16")
MASK_SCHEDULES = ("cosine", "arccos", "truncated", "beta")
DISCRIMINATORS = ("patches", "features")
SHARDINGS = ("none", "full")
# Names of older command lines and files; read, and not written any more.
OLD_NAMES = {
    "accumulate_steps": "grad_accum_steps",
    "class_drop": "label_drop_prob",
    "critic": "discriminator",
}
OLD_PRECISIONS = {"bf16": "bfloat16"}


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained, whatever the stage; its settings say what they are.

    Raises:
        ValueError: a value out of range, naming the setting, the value and what is allowed.
    """

    max_steps: int = setting(4000, "optimizer steps", low=1)
    batch_size: int = setting(
        32,
        "images a step, over all processes: what is learned does not depend on how many there are",
        low=1,
    )
    grad_accum_steps: int = setting(
        1,
        "gradient accumulation: pieces of a process's share of the batch that are computed one "
        "after another, where the whole does not fit the memory",
        low=1,
    )
    learning_rate: float = setting(1e-3, "peak rate of AdamW, after a linear warm-up", low=0.0)
    matrix_learning_rate: float = setting(
        0.0, "peak rate of Muon on the weight matrices; 0 leaves them to AdamW", low=0.0
    )
    min_rate: float = setting(
        0.02, "share of the peak rate at the end of the cosine", low=0.0, high=1.0
    )
    warmup_steps: int = setting(100, "steps of linear warm-up", low=0)
    weight_decay: float = setting(0.0, "decoupled weight decay of matrices", low=0.0)
    grad_clip: float = setting(1.0, "largest gradient norm; 0 does not clip", low=0.0)
    ema_decay: float = setting(
        0.999, "decay of the EMA of the weights, which is saved for use", low=0.0, high=0.99999
    )
    seed: int = setting(
        0, "of every random number in training, in [0, 2**63)", low=0, high=MAX_SEED
    )
    log_every: int = setting(20, "steps between log lines", low=1)
    sample_every: int = setting(500, "steps between sample sheets", low=1)
    save_every: int = setting(250, "steps between saved states and checkpoints", low=1)
    precision: str = setting(
        "auto",
        "`bfloat16` computes in it and keeps weights in float32, on a GPU or CPU with instructions "
        "for it; `auto` is bfloat16 where a GPU has them, else `float32`",
        choices=PRECISIONS,
    )
    compile: bool = setting(
        False,
        "compile the blocks with torch.compile; needs a compiler, and minutes at the start",
    )
    explode_factor: float = setting(
        5.0,
        "a step whose loss is above so many times its mean of late is not taken; the run goes back "
        "to its last state with half the rate. 0 looks for nan and infinity only",
        low=0.0,
    )

    def __post_init__(self) -> None:
        old = OLD_PRECISIONS.get(self.precision)
        if old is not None:
            object.__setattr__(self, "precision", old)
        check_settings(self)


@dataclass(frozen=True)
class TokenizerTrainConfig(TrainConfig):
    """How a VQ tokenizer is trained; its settings say what they are."""

    l1_weight: float = setting(1.0, "of the mean absolute error of pixels", low=0.0)
    l2_weight: float = setting(1.0, "of the mean squared error of pixels", low=0.0)
    perceptual_weight: float = setting(
        0.0, "of the distance of image features; 0 needs no feature network", low=0.0
    )
    perceptual_scale: float = setting(
        1.0,
        "above 1, a random window of each image is enlarged so much before its features are taken, "
        "deep ones too: a classifier knows photos of more pixels",
        low=1.0,
        high=8.0,
    )
    commit_weight: float = setting(0.25, "of the distance of latents to their codes", low=0.0)
    adversarial_weight: float = setting(
        0.0,
        "of the discriminator's loss, relative to the balance of both; 0 has no discriminator",
        low=0.0,
    )
    adversarial_start: int = setting(0, "steps before the discriminator has a say", low=0)
    discriminator: str = setting(
        "patches",
        "what it sees, `patches` of the image (PatchGAN) or `features`, the maps of the network of "
        "the perceptual loss (Projected GAN), which must be on",
        choices=DISCRIMINATORS,
    )
    sampled_images: int = setting(
        0,
        "images a step that are decoded from tokens of a trained transformer and judged by the "
        "discriminator only, beside the batch (with freeze_codes)",
        low=0,
    )
    freeze_codes: bool = setting(False, "train the decoder only, so that tokens keep their meaning")
    continuous_steps: int = setting(200, "steps before quantisation starts", low=0)
    revive_every: int = setting(50, "steps between revivals of dead codes; 0 revives none", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sampled_images and not (self.freeze_codes and self.adversarial_weight):
            raise ValueError(
                "sampled_images must be 0 without freeze_codes and an adversarial_weight; "
                f"got {self.sampled_images}"
            )
        if self.discriminator == "features" and not self.perceptual_weight:
            raise ValueError(
                "discriminator must be patches where perceptual_weight is 0; got features"
            )


@dataclass(frozen=True)
class TransformerTrainConfig(TrainConfig):
    """How a masked transformer is trained; its settings say what they are."""

    label_smoothing: float = setting(
        0.1, "share of the target spread over all codes", low=0.0, high=1.0
    )
    label_drop_prob: float = setting(
        0.1, "probability that an image is trained without its class", low=0.0, high=1.0
    )
    token_drop: float = setting(
        0.0,
        "share of visible tokens replaced by the mask token though no loss is taken there",
        low=0.0,
        high=1.0,
    )
    mask_schedule: str = setting(
        "cosine",
        "how the share of hidden tokens is drawn, `cosine` (MaskGIT), `arccos` (Halton-MaskGIT), "
        "less often nearly all or nearly none, `truncated` (MAGE), never below half, or `beta`, "
        "Beta(12, 3), around 0.8",
        choices=MASK_SCHEDULES,
    )
    checkpoint_blocks: bool = setting(
        False,
        "activation checkpointing: compute the blocks again in the backward pass in place of "
        "keeping what they computed: slower, with less memory",
    )
    shard: str = setting(
        "none",
        "with several processes, `full` shards weights, gradients, EMA and optimizer state among "
        "them: less memory each, more traffic between them",
        choices=SHARDINGS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile and self.shard != "none":
            raise ValueError("compile must be off where shard is full; the two are not joined yet")
