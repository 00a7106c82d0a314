"""Presets: their files, their place behind options, and what is said about wrong names."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from commands import assert_refused, run, train_tokenizer
from maskgit_core.cli.main import build_parser
from maskgit_core.cli.options import TRANSFORMER_DEFAULTS, stage_settings
from maskgit_core.losses import draw_token_mask
from maskgit_core.networks.registry import build_transformer
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.training.presets import (
    FOLDER,
    FROM_DATA,
    Preset,
    load_preset,
    parse_preset,
    preset_names,
    with_settings,
)
from maskgit_core.weights.checkpoint import load_checkpoint, read_config
from maskgit_core.weights.known import KNOWN_WEIGHTS

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "checkpoints" / "scenes-flowers"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_says_what_it_is(name):
    preset = load_preset(name)
    assert preset.name == name and preset.summary
    assert (FOLDER / f"{name}.toml").read_text(encoding="utf-8").startswith("#")
    assert preset.data.num_images > preset.data.num_classes
    assert preset.published_tokenizer == "" or preset.published_tokenizer in KNOWN_WEIGHTS


def test_s_is_the_shape_of_the_shipped_checkpoint():
    preset, config = load_preset("scenes-flowers-s"), read_config(SHIPPED)
    for part in ("tokenizer", "transformer"):
        found = {"kind", *(FROM_DATA if part == "transformer" else ())}
        shape = {k: v for k, v in config[part].items() if k not in found}
        wanted = {k: list(v) if isinstance(v, tuple) else v for k, v in vars_of(preset, part)}
        assert shape == {key: wanted[key] for key in shape}
    assert len(config["classes"]) == preset.data.num_classes


def vars_of(preset: Preset, part: str):
    return vars(getattr(preset, part)).items()


@pytest.mark.parametrize(("size", "millions"), [("tiny", 23), ("small", 69), ("base", 142)])
def test_imagenet_presets_have_the_published_sizes(size, millions):
    preset = load_preset(f"imagenet-256-{size}")
    shape = dict(codebook_size=16384, num_classes=1000, grid_size=16)
    config = with_settings({"shape": preset.transformer}, [])["shape"]
    with torch.device("meta"):
        network = build_transformer(type(config)(**{**vars(config), **shape}))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.6)


def test_the_networks_of_postcards_fit_what_may_be_shipped():
    preset = load_preset("postcards-s")
    grid = preset.tokenizer.grid_size
    assert preset.tokenizer.image_size == 128 and grid == 16
    shape = dict(codebook_size=preset.tokenizer.codebook_size, num_classes=15, grid_size=grid)
    with torch.device("meta"):
        networks = (
            VQTokenizer(preset.tokenizer),
            build_transformer(replace(preset.transformer, **shape)),
        )
    numbers = sum(p.numel() for network in networks for p in network.parameters())
    assert 2 * numbers < 60e6  # bytes, in float16
    assert load_preset("postcards-xs").tokenizer.image_size == 128


def test_settings_are_changed_one_by_one():
    settings = ["transformer.width=512", "kind=adaln", "tokenizer.widths=[16, 32, 64]"]
    settings += ["transformer_training.learning_rate=1e-4", "num_steps=8"]
    preset = load_preset("scenes-flowers-xs", settings)
    assert (preset.transformer.width, preset.transformer.kind) == (512, "adaln")
    assert preset.tokenizer.widths == (16, 32, 64)
    assert preset.transformer_training.learning_rate == 1e-4
    assert preset.sampling.num_steps == 8
    rest = load_preset("scenes-flowers-xs")
    assert preset.tokenizer_training == rest.tokenizer_training


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("transformer.widht=3", "did you mean 'width'"),
        ("widht=3", "did you mean 'width'"),
        ("transfomer.width=3", "did you mean 'transformer'"),
        ("max_steps=3", "write tokenizer_training.max_steps or transformer_training.max_steps"),
        ("transformer.num_classes=3", "follows from tokenizer and data"),
        ("tokenizer_training.class_drop=0", "it is a setting of transformer_training"),
        ("transformer.width", "key=value"),
        ("transformer.width=wide", "width must be a whole number"),
        ("transformer_training.mask_schedule=linear", "cosine, arccos"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(setting, says):
    with pytest.raises(ValueError, match=says):
        load_preset("scenes-flowers-xs", [setting])


def test_old_names_of_settings_are_still_understood(capsys):
    words = ["train-transformer", "--data", "x", "--out", "y", "--accumulate-steps", "3"]
    words += ["--set", "class_drop=0.25", "--precision", "bf16"]
    args = build_parser().parse_args(words)
    config, _ = stage_settings(args, "transformer", TRANSFORMER_DEFAULTS, tiny.TRANSFORMER)
    assert (config.grad_accum_steps, config.label_drop_prob) == (3, 0.25)
    assert config.precision == "bfloat16"
    assert run("train-transformer", "--help") == 0
    shown = capsys.readouterr().out
    assert "--grad-accum-steps" in shown and "--label-drop-prob" in shown
    assert "--accumulate-steps" not in shown and "--class-drop" not in shown


@pytest.mark.parametrize("config", [tiny.FIRST, tiny.SECOND, tiny.TOKENIZER, tiny.TRANSFORMER])
def test_every_setting_says_what_it_is(config, capsys):
    stage = "tokenizer" if config in (tiny.FIRST, tiny.TOKENIZER) else "transformer"
    assert run(f"train-{stage}", "--help") == 0
    shown = "".join(capsys.readouterr().out.split())
    for field in fields(config):
        if config is tiny.TRANSFORMER and field.name in FROM_DATA:
            continue
        assert "".join(field.metadata["help"].split()) in shown, field.name


def test_a_wrong_preset_or_file_is_named():
    with pytest.raises(ValueError, match="did you mean 'imagenet-256-small'"):
        load_preset("imagenet-265-small")
    with pytest.raises(ValueError, match="did you mean 'transformer'"):
        parse_preset("x", {"tranformer": {}})
    with pytest.raises(ValueError, match="did you mean 'depth'"):
        parse_preset("x", {"transformer": {"dept": 3}})


def test_options_win_over_set_and_set_over_the_preset(capsys, photo_folder, tmp_path):
    options = ["--preset", "scenes-flowers-xs", "--set", "perceptual_weight=0", "--set"]
    options += ["batch_size=3", "--set", "ema_decay=0.5", "--max-minutes", 0]
    assert train_tokenizer(photo_folder, tmp_path / "out", *options) == 0
    state = torch.load(tmp_path / "out" / "state.pt", weights_only=True)
    assert state["config"]["batch_size"] == 4  # an option of `train_tokenizer`
    assert state["config"]["ema_decay"] == 0.5  # --set
    assert state["config"]["l2_weight"] == 2.0  # the preset
    assert state["network"]["widths"] == [8, 16]


def test_wrong_names_on_the_command_line_are_one_line(capsys, photo_folder, tmp_path):
    command = ["train-tokenizer", "--data", photo_folder, "--out", tmp_path / "out"]
    assert_refused(capsys, *command, "--preset", "scenes-flower-xs", says="did you mean")
    assert_refused(capsys, *command, "--set", "batchsize=3", says="did you mean 'batch_size'")
    assert_refused(
        capsys, *command, "--preset", "imagenet-256-tiny", says="it keeps a published one"
    )
    command[0] = "train-transformer"
    assert_refused(capsys, *command, says="tokenizer is needed")


def test_a_preset_decides_the_transformer_and_its_sampling(photo_folder, tmp_path, tiny_checkpoint):
    options = ["--preset", "imagenet-256-tiny", "--tokenizer", tiny_checkpoint, "--max-minutes", 0]
    options += ["--set", "width=16", "--set", "depth=1", "--set", "num_heads=2"]
    options += ["--batch-size", 2, "--sample-every", 99]
    out = tmp_path / "out"
    assert run("train-transformer", "--data", photo_folder, "--out", out, *options) == 0
    loaded = load_checkpoint(out / "checkpoint")
    assert loaded.transformer.config.kind == "adaln"
    assert loaded.transformer.config.dropout == 0.1
    assert loaded.sampling.order == "halton"
    assert json.loads((out / "checkpoint" / "config.json").read_text())["classes"] == sorted(
        tiny.CLASSES
    )


def test_truncated_masks_hide_at_least_half():
    mask = draw_token_mask(20_000, 256, torch.Generator().manual_seed(0), "truncated")
    share = mask.float().mean(1)
    assert share.min() >= 0.5 and share.max() <= 1
    # The mean and deviation of a normal distribution cut at both ends, taken by summing.
    ratio = torch.linspace(0.5, 1, 10_001, dtype=torch.float64)
    weight = torch.exp(-(((ratio - 0.55) / 0.25) ** 2) / 2)
    mean = (ratio * weight).sum() / weight.sum()
    spread = ((ratio - mean).square() * weight).sum() / weight.sum()
    assert share.mean().item() == pytest.approx(mean.item() + 0.5 / 256, abs=0.004)
    assert share.std().item() == pytest.approx(spread.sqrt().item(), abs=0.004)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([16, 144, 256]))
def test_beta_masks_follow_their_distribution(seed, num_tokens):
    generator = torch.Generator().manual_seed(seed)
    mask = draw_token_mask(4000, num_tokens, generator, "beta")
    assert mask.any(1).all()
    share = mask.float().mean(1) - 0.5 / num_tokens  # ceil adds half a token
    assert share.mean().item() == pytest.approx(12 / 15, abs=0.02)
    assert share.std().item() == pytest.approx((12 * 3 / (15**2 * 16)) ** 0.5, abs=0.02)
    # P(ratio <= x) is the chance that at least 12 of 14 uniform numbers are below x.
    for bound in (0.625, 0.75, 0.875):
        below = sum(math.comb(14, k) * bound**k * (1 - bound) ** (14 - k) for k in range(12, 15))
        counted = (mask.sum(1) <= bound * num_tokens).float().mean().item()
        assert counted == pytest.approx(below, abs=0.04)


def test_arccos_masks_vary_less_than_cosine_masks():
    shares = {
        schedule: draw_token_mask(4000, 256, torch.Generator().manual_seed(0), schedule)
        .float()
        .mean(1)
        for schedule in ("cosine", "arccos")
    }
    for share in shares.values():
        assert share.mean().item() == pytest.approx(2 / torch.pi, abs=0.02)
    squares = {name: share.square().mean().item() for name, share in shares.items()}
    assert squares["cosine"] == pytest.approx(1 / 2, abs=0.02)
    assert squares["arccos"] == pytest.approx(4 / torch.pi**2 * (torch.pi - 2), abs=0.02)
