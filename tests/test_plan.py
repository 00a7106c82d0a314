"""plan: counts against real networks, sums that must hold, what is said of too little memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import tiny
from commands import assert_refused, run
from maskgit_core import TrainConfig
from maskgit_core.networks.registry import build_transformer
from maskgit_core.training import estimate as plans
from maskgit_core.training.accelerators import GPUS, Device, find_device, matrix_speed
from maskgit_core.training.presets import DataConfig, Preset

SMALL = Preset(
    name="small",
    data=DataConfig(num_images=100, num_classes=3),
    tokenizer=tiny.TOKENIZER,
    tokenizer_training=replace(tiny.TRAIN, batch_size=8, max_steps=100),
    transformer=tiny.TRANSFORMER,
    transformer_training=replace(tiny.TRAIN, batch_size=16, max_steps=50),
)
DEVICE = Device("test", memory=1e9, peak=1e12, precision="fp32", share=(0.5, 0.25), measured=True)


@pytest.fixture(scope="module")
def plan():
    return plans.make_plan(SMALL, DEVICE)


def test_parameters_are_those_of_the_networks(plan):
    tokenizer, transformer = plan.stages
    assert tokenizer.parameters == sum(p.numel() for p in tiny.tokenizer().parameters())
    shape = replace(tiny.TRANSFORMER, num_classes=3)
    wanted = sum(p.numel() for p in build_transformer(shape).parameters())
    assert transformer.parameters == wanted


def test_operations_are_those_of_the_layers(plan):
    config = tiny.TRANSFORMER
    length, width = config.num_tokens + 1, config.width
    block = 2 * length * width * (4 * width + 2 * config.mlp_width) + 4 * length**2 * width
    edges = 2 * width**2 * (2 * length + config.num_tokens)
    head = 2 * config.num_tokens * width * config.codebook_size
    stage = plan.stages[1]
    assert stage.forward_flops == pytest.approx(config.depth * block + edges + head, rel=0.05)
    # A backward pass has two products for each one forward.
    assert stage.training_flops == pytest.approx(3 * stage.forward_flops, rel=0.12)


def test_kept_activations_are_those_of_a_real_pass(plan):
    network = tiny.tokenizer().train().requires_grad_(True)
    images = tiny.images(2)
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output, quantized = network(images)
        loss = (output - images).square().mean() + quantized.codebook_loss + quantized.commit_loss
    assert loss.requires_grad
    assert plan.stages[0].image_bytes == pytest.approx(sum(kept.values()) / 2, rel=0.15)


def test_time_and_memory_follow_from_the_counts(plan):
    stage = plan.stages[1]
    work = stage.batch_size * stage.training_flops + stage.step_flops
    assert stage.images_per_second == pytest.approx(stage.batch_size * 0.25 * 1e12 / work)
    assert stage.hours == pytest.approx(50 * 16 / stage.images_per_second / 3600)
    assert plan.hours == pytest.approx(sum(s.hours for s in plan.stages))
    assert plan.cost(3.0) == pytest.approx(3 * plan.hours)
    # AdamW keeps two numbers a weight, and there are gradient and running mean.
    assert stage.fixed_bytes == pytest.approx(4 * 5 * stage.parameters, rel=0.01)
    two = plans.make_plan(SMALL, DEVICE, 2)
    assert two.stages[1].rank_batch == 8
    assert two.stages[1].rank_bytes < stage.rank_bytes
    assert 1.5 < two.stages[1].images_per_second / stage.images_per_second <= 2
    assert two.cost(3.0) > plan.cost(3.0)


def test_muon_keeps_less_and_works_more():
    muon = replace(SMALL, transformer_training=replace(tiny.TRAIN, matrix_learning_rate=0.02))
    wide = replace(tiny.TRANSFORMER, width=32, mlp_width=64)
    with_muon, without = (
        plans.plan_stage(replace(p, transformer=wide), "transformer", t, DEVICE, 1)
        for p, t in ((muon, muon.transformer_training), (SMALL, tiny.TRAIN))
    )
    assert with_muon.fixed_bytes < without.fixed_bytes
    assert with_muon.step_flops > without.step_flops == 0


def test_too_large_says_by_how_much_and_what_fits(plan):
    assert plan.too_large == ()
    stage = plan.stages[1]
    short = replace(
        DEVICE, memory=(stage.fixed_bytes + 5 * stage.image_bytes) / plans.USABLE * 1.01
    )
    (sentence,) = plans.make_plan(SMALL, short).too_large[-1:]
    assert "the transformer of small needs" in sentence and "GB more than" in sentence
    assert "5 images a rank would fit: 4 pieces of each batch" in sentence
    assert "or 4 devices" in sentence


def test_a_batch_in_pieces_takes_less_memory(plan):
    halved = replace(SMALL.transformer_training, accumulate_steps=2)
    found = plans.make_plan(replace(SMALL, transformer_training=halved), DEVICE).stages[1]
    whole = plan.stages[1]
    assert found.rank_batch * 2 == whole.rank_batch
    assert whole.rank_bytes - found.rank_bytes == found.rank_batch * found.image_bytes
    assert found.images_per_second == whole.images_per_second


def test_where_nothing_fits_a_smaller_preset_is_named():
    stage = plans.StagePlan("transformer", 10**9, 1, 3, 0, 10, 10, 1, 30e9, 1e9, 1.0)
    large = Preset(name="large")
    sentence = plans._too_large(stage, large, replace(DEVICE, memory=4e9))
    assert "not even one image fits; the preset imagenet-256-base would fit" in sentence
    assert "no preset would fit" in plans._too_large(stage, large, replace(DEVICE, memory=1e7))


def test_devices(capsys):
    assert matrix_speed(0.01) > 1e6
    assert find_device("h100") is GPUS["h100"]
    with pytest.raises(ValueError, match="did you mean 'h100'"):
        find_device("h10")


def test_the_command_prints_lines_or_json(capsys, monkeypatch):
    command = ["plan", "--preset", "imagenet-256-tiny", "--device", "a100"]
    assert run(*command, "--gpus", 2, "--price-per-hour", 2, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["transformer"]["rank_batch"] == 128
    assert facts["cost"] == pytest.approx(4 * facts["hours"])
    assert facts["transformer"]["parameters"] == pytest.approx(23.0e6, rel=0.01)
    assert run(*command, "--utilisation", 0.5) == 0
    text = capsys.readouterr().out
    assert "images/s" in text and "as you said" in text
    assert "tokenizer: kept from imagenet-256-tiny" in text
    assert_refused(capsys, *command, "--gpus", 0, says="gpus must be")
    assert_refused(capsys, *command, "--gpus", 300, says="must not exceed the 256 images")
    assert_refused(capsys, *command, "--set", "transformer.dept=3", says="did you mean 'depth'")
    assert_refused(capsys, "plan", "--preset", "imagenet", says="preset must be one of")


def test_a_rank_needs_less_where_weights_are_cut_among_several():
    network = build_transformer(replace(tiny.TRANSFORMER, num_classes=3))
    block = sum(p.numel() for p in network.blocks[0].parameters())
    count = sum(p.numel() for p in network.parameters())
    cut = replace(SMALL.transformer_training, shard="full")

    def needs(training: TrainConfig, ranks: int) -> float:
        state, _ = plans.optimizer_needs(network, training)
        return plans.fixed_bytes(network, training, state, ranks)

    # 20 bytes a parameter with AdamW and the running mean.
    whole = SMALL.transformer_training
    assert needs(whole, 1) == needs(whole, 8) == needs(cut, 1) == 20 * count
    # Put together for a time: weights and gradients of a block and of what is outside the blocks.
    gathered = 8 * (count - (tiny.TRANSFORMER.depth - 1) * block)
    assert needs(cut, 8) == 20 * count / 8 + gathered
    assert needs(cut, 8) < needs(cut, 2) < needs(whole, 2)
    preset = replace(SMALL, transformer_training=cut)
    assert plans.make_plan(preset, DEVICE, 8).stages[1].fixed_bytes == needs(cut, 8)
