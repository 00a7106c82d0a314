"""What a training will need, before it starts: parameters, work, memory, time and cost.

Operations and stored activations are counted by running the real networks on tensors without
content (`torch.device("meta")`), so a count follows any change of shape. Time is operations over
an assumed or measured share of a device's peak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maskgit_core.config import TrainConfig, TransformerConfig, check_range
from maskgit_core.networks.registry import build_transformer
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.vqgan import VQGANConfig
from maskgit_core.training.accelerators import Device
from maskgit_core.training.optim import build_optimizer
from maskgit_core.training.presets import Preset, load_preset, preset_names

# LlamaGen's VQ-16, the tokenizer of the published Halton-MaskGIT weights.
PUBLISHED_TOKENIZER = VQGANConfig(codebook_size=16384, codebook_dim=8, l2_normalize=True)
MICRO_BATCH = 2
FLOAT = 4
USABLE = 0.92  # of a device's memory; the rest goes to its context and to fragments
SCALING = 0.9  # of perfect scaling, with several devices; assumed
MIXED = 0.6  # activations under mixed precision, of those in float32: norms and losses stay float32
NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class StagePlan:
    """Needs of one stage.

    Attributes:
        stage: `tokenizer` or `transformer`.
        parameters: of the network.
        forward_flops: operations of one pass over one image.
        training_flops: operations of a training step, for each image of it.
        step_flops: operations of a step whatever its batch: the optimizer's.
        steps, batch_size: of the whole run, all ranks together.
        ranks: processes that share a batch.
        fixed_bytes: weights, gradients, running mean and optimizer state of a rank, less where
            `shard` cuts them among the ranks.
        image_bytes: activations kept for the backward pass, for each image of a rank's batch.
        images_per_second: expected, all ranks together.
        pieces: of a batch that a rank computes one after the other.
    """

    stage: str
    parameters: int
    forward_flops: float
    training_flops: float
    step_flops: float
    steps: int
    batch_size: int
    ranks: int
    fixed_bytes: float
    image_bytes: float
    images_per_second: float
    pieces: int = 1

    @property
    def rank_batch(self) -> int:
        """Images that one rank computes at once."""
        return -(-self.batch_size // (self.ranks * self.pieces))

    @property
    def rank_bytes(self) -> float:
        """Memory of a rank in bytes."""
        return self.fixed_bytes + self.rank_batch * self.image_bytes

    @property
    def hours(self) -> float:
        """Expected hours of the stage."""
        return self.steps * self.batch_size / self.images_per_second / 3600

    def largest_batch(self, memory: float) -> int:
        """Images of a step that a rank with this much memory can hold; 0 where none."""
        return max(0, int((USABLE * memory - self.fixed_bytes) // self.image_bytes))


@dataclass(frozen=True)
class Plan:
    """Needs of a whole training.

    Attributes:
        preset: what was planned.
        device, ranks: where.
        stages: in the order of training.
        too_large: one sentence a stage that does not fit the memory, and what would fit.
    """

    preset: Preset
    device: Device
    ranks: int
    stages: tuple[StagePlan, ...]
    too_large: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Expected hours of all stages."""
        return sum(stage.hours for stage in self.stages)

    def cost(self, price_per_hour: float) -> float:
        """Return the price of the hours of all devices."""
        return self.hours * self.ranks * price_per_hour


def make_plan(preset: Preset, device: Device, ranks: int = 1) -> Plan:
    """Return what a preset needs on a number of equal devices, one rank each.

    Raises:
        ValueError: fewer than one rank, or more than a step has images.
    """
    check_range("gpus", ranks, 1, whole=True)
    smallest = min(training.batch_size for _, training in _trainings(preset))
    if ranks > smallest:
        raise ValueError(f"gpus must not exceed the {smallest} images of a step; got {ranks}")
    stages = tuple(
        plan_stage(preset, stage, training, device, ranks) for stage, training in _trainings(preset)
    )
    problems = [_too_large(stage, preset, device) for stage in stages]
    return Plan(preset, device, ranks, stages, tuple(filter(None, problems)))


def _trainings(preset: Preset) -> list[tuple[str, TrainConfig]]:
    found = [("transformer", preset.transformer_training)]
    if not preset.published_tokenizer:
        found.insert(0, ("tokenizer", preset.tokenizer_training))
    return found


def plan_stage(
    preset: Preset, stage: str, training: TrainConfig, device: Device, ranks: int
) -> StagePlan:
    """Return the needs of one stage of a preset."""
    network, run = _network(preset, stage)
    parameters = sum(p.numel() for p in network.parameters())
    forward, passes, kept = count_pass(network, run)
    extra = feature_flops(training, preset.tokenizer.image_size) if stage == "tokenizer" else 0.0
    training_flops = passes + extra
    state, optimizer_flops = optimizer_needs(network, training)
    speed = device.peak * device.share[0 if stage == "tokenizer" else 1]
    speed *= ranks * (SCALING if ranks > 1 else 1.0)
    # Each rank repeats the optimizer's work.
    step = training.batch_size * training_flops + ranks * optimizer_flops
    return StagePlan(
        stage=stage,
        parameters=parameters,
        forward_flops=forward,
        training_flops=training_flops,
        step_flops=optimizer_flops,
        steps=training.max_steps,
        batch_size=training.batch_size,
        ranks=ranks,
        fixed_bytes=fixed_bytes(network, training, state, ranks),
        image_bytes=kept * (MIXED if device.precision != "fp32" else 1.0),
        images_per_second=training.batch_size * speed / step,
        pieces=training.accumulate_steps,
    )


def _network(preset: Preset, stage: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a network without content and a function that computes its loss."""
    shape = PUBLISHED_TOKENIZER if preset.published_tokenizer else preset.tokenizer
    with torch.device("meta"):
        if stage == "tokenizer":
            network: nn.Module = VQTokenizer(preset.tokenizer)
            images = torch.empty(MICRO_BATCH, 3, shape.image_size, shape.image_size)
            return network, lambda: _tokenizer_loss(network, images)
        model = build_transformer(transformer_shape(preset)).train()
        tokens = torch.zeros(MICRO_BATCH, shape.grid_size**2, dtype=torch.int64)
        labels = torch.zeros(MICRO_BATCH, dtype=torch.int64)
        return model, lambda: _transformer_loss(model, tokens, labels)


def transformer_shape(preset: Preset) -> TransformerConfig:
    """Return the transformer of a preset with the codes, grid and classes that it is meant for."""
    shape = PUBLISHED_TOKENIZER if preset.published_tokenizer else preset.tokenizer
    return replace(
        preset.transformer,
        codebook_size=shape.codebook_size,
        grid_size=shape.grid_size,
        num_classes=preset.data.num_classes,
    )


def _tokenizer_loss(network: nn.Module, images: Tensor) -> Tensor:
    # As in `VQTokenizer.forward`, whose search for the nearest code needs values to choose from.
    quantizer, latents = network.quantizer, network.encoder(images)
    latents = quantizer.normalized(latents.movedim(1, -1))
    distance = latents.detach() @ quantizer.normalized(quantizer.codebook.detach()).T
    codes = quantizer.lookup(distance.argmin(-1))
    output = network.decoder((latents.movedim(-1, 1) + codes) / 2)
    return F.mse_loss(output, images) + F.mse_loss(codes, latents.movedim(-1, 1))


def _transformer_loss(network: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
    # Over all tokens: how many are hidden differs from step to step.
    return F.cross_entropy(network(tokens, labels).flatten(0, 1), tokens.flatten())


def count_pass(network: nn.Module, loss: Callable[[], Tensor]) -> tuple[float, float, float]:
    """Return, for one image: FLOPs forward, FLOPs forward and backward, bytes kept in between.

    Args:
        network: on the meta device.
        loss: computes the loss of `MICRO_BATCH` images.
    """
    known = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            value = loss()
        forward = counter.get_total_flops()
        value.backward()
    network.zero_grad(set_to_none=True)
    total = counter.get_total_flops()
    return forward / MICRO_BATCH, total / MICRO_BATCH, sum(kept.values()) / MICRO_BATCH


def feature_flops(training: TrainConfig, image_size: int) -> float:
    """Return the FLOPs of the perceptual loss for one image; 0 without, or if not installed."""
    if not training.perceptual_weight:
        return 0.0
    from maskgit_core.training.losses import DEEP_FEATURE_BLOCKS, FEATURE_BLOCKS, PerceptualLoss

    enlarged = training.perceptual_scale > 1
    try:
        loss = PerceptualLoss(DEEP_FEATURE_BLOCKS if enlarged else FEATURE_BLOCKS).to("meta")
    except ValueError:
        return 0.0
    side = round(image_size * training.perceptual_scale * (0.75 if enlarged else 1.0))
    images = torch.empty(1, 3, side, side, device="meta", requires_grad=True)
    counter = FlopCounterMode(display=False)
    with counter:
        loss(images, images.detach()).mean().backward()
    return float(counter.get_total_flops())


def optimizer_needs(network: nn.Module, training: TrainConfig) -> tuple[float, float]:
    """Return (bytes of the optimizer's state, its FLOPs a step)."""
    optimizer = build_optimizer(
        network,
        learning_rate=training.learning_rate,
        matrix_learning_rate=training.matrix_learning_rate,
        weight_decay=training.weight_decay,
    )
    state = flops = 0.0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state += FLOAT * parameter.numel() * (1 if group["orthogonal"] else 2)
            if group["orthogonal"]:
                short, long = sorted(parameter.flatten(1).shape)
                # Two products with the long side and one of the small square in each iteration.
                flops += NEWTON_SCHULZ_STEPS * (4 * short**2 * long + 2 * short**3)
    return state, flops


def fixed_bytes(
    network: nn.Module, training: TrainConfig, optimizer_bytes: float, ranks: int
) -> float:
    """Return the memory of a rank that no image adds to.

    Args:
        network: on the meta device.
        training: its settings.
        optimizer_bytes: state of the optimizer, of the whole network.
        ranks: processes; with `shard = full` each holds its slices, and for a time the weights and
            gradients of one block and of what lies outside the blocks.
    """
    parameters = sum(p.numel() for p in network.parameters())
    everything = 3 * FLOAT * parameters + optimizer_bytes  # weights, gradients, running mean
    if training.shard == "none" or ranks == 1:
        return everything
    blocks = [sum(p.numel() for p in block.parameters()) for block in network.blocks]
    gathered = parameters - sum(blocks) + max(blocks)
    return everything / ranks + 2 * FLOAT * gathered


def _too_large(stage: StagePlan, preset: Preset, device: Device) -> str:
    """Return one sentence on a stage that does not fit, and what would; "" where it fits."""
    usable = USABLE * device.memory
    over = stage.rank_bytes - usable
    if over <= 0:
        return ""
    text = (
        f"the {stage.stage} of {preset.name} needs {stage.rank_bytes / 1e9:.1f} GB a rank with "
        f"{stage.rank_batch} images, {over / 1e9:.1f} GB more than the {usable / 1e9:.1f} GB that "
        f"{device.name} has to use"
    )
    fits = stage.largest_batch(device.memory)
    if fits:
        pieces = stage.pieces * -(-stage.rank_batch // fits)
        return (
            f"{text}; {fits} images a rank would fit: {pieces} pieces of each batch one after the "
            f"other, or {-(-stage.batch_size // fits)} devices"
        )
    smaller = _smaller(preset, stage.stage, stage.parameters, device)
    return f"{text}; not even one image fits; {smaller}"


def _smaller(preset: Preset, stage: str, parameters: int, device: Device) -> str:
    """Return which other preset's stage would fit the device."""
    found: list[tuple[int, str]] = []
    for name in preset_names():
        other = load_preset(name)
        for kind, training in _trainings(other):
            if name != preset.name and kind == stage:
                needs = plan_stage(other, kind, training, device, 1)
                if needs.parameters < parameters and needs.largest_batch(device.memory) > 0:
                    found.append((needs.parameters, name))
    if not found:
        return "no preset would fit"
    return f"the preset {max(found)[1]} would fit"


def plan_facts(plan: Plan, price_per_hour: float | None = None) -> dict[str, Any]:
    """Return a plan as plain numbers for JSON."""
    facts: dict[str, Any] = {
        "preset": plan.preset.name,
        "device": plan.device.name,
        "gpus": plan.ranks,
        "hours": plan.hours,
        "shares_measured": plan.device.measured,
        "too_large": list(plan.too_large),
    }
    if price_per_hour is not None:
        facts["cost"] = plan.cost(price_per_hour)
    for stage in plan.stages:
        names = ("parameters", "forward_flops", "training_flops", "steps", "batch_size")
        names += ("rank_batch", "rank_bytes", "images_per_second", "hours")
        facts[stage.stage] = {name: getattr(stage, name) for name in names}
    return facts
