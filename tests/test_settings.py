"""Every sampling setting is everywhere: configuration, page, command line, presets of the page."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from demo.presets import PRESETS, presets_for
from demo.serving.catalogue import ModelEntry
from demo.settings import FIELD, FIELDS, MAX_STEPS, build_config, shown_values
from maskgit_core.cli.main import build_parser
from maskgit_core.config import SamplingConfig, from_dict, to_dict
from maskgit_core.orders import ORDERS
from maskgit_core.schedules import GUIDANCE_SCHEDULES, NOISE_SCHEDULES, SCHEDULES
from maskgit_core.weights.families.sampling import PublishedSampling, google_sampling
from maskgit_core.weights.known import KNOWN_WEIGHTS

TABLES = {
    "order": ORDERS,
    "schedule": SCHEDULES,
    "guidance_schedule": GUIDANCE_SCHEDULES,
    "noise_schedule": NOISE_SCHEDULES,
}
OTHER = SamplingConfig(
    num_steps=5,
    order="halton",
    schedule="arccos_increments",
    temperature=0.7,
    guidance_scale=2.5,
    guidance_schedule="power_cosine",
    choice_temperature=7.0,
    top_k=9,
    top_p=0.5,
    guidance_power=2.5,
    noise_schedule="endpoints",
    first_step_temperature=2.0,
    last_step_temperature=0.5,
)


def test_the_page_has_every_setting_and_no_other():
    assert {field.name for field in FIELDS} == {field.name for field in fields(SamplingConfig)}
    for name, table in TABLES.items():
        assert FIELD[name].choices == tuple(table)
    for preset in PRESETS.values():
        assert set(preset) == set(FIELD)


def test_settings_come_back_from_page_and_file_as_they_were():
    for config in (OTHER, SamplingConfig()):
        assert build_config(shown_values(config)) == config
        assert from_dict(SamplingConfig, to_dict(config)) == config


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingConfig)])
def test_the_command_line_has_every_setting(name):
    parser, value = build_parser(), getattr(OTHER, name)
    option = f"--{name.replace('_', '-')}"
    for command in (["sample"], ["inpaint", "--image", "a", "--mask", "b"]):
        assert not hasattr(parser.parse_args(command), name)
        assert getattr(parser.parse_args([*command, option, str(value)]), name) == value


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_power": -1},
        {"guidance_power": 21},
        {"noise_schedule": "none"},
        {"first_step_temperature": -0.1},
        {"last_step_temperature": float("nan")},
        {"last_step_temperature": 101},
        {"schedule": "sine"},
        {"guidance_schedule": "power"},
    ],
    ids=str,
)
def test_settings_out_of_range_are_named(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name} must be"):
        SamplingConfig(**change)


@pytest.mark.parametrize("name", KNOWN_WEIGHTS)
def test_published_settings_fit_the_page(name):
    shown = shown_values(KNOWN_WEIGHTS[name].sampling)
    assert build_config(shown) == KNOWN_WEIGHTS[name].sampling


def test_a_large_model_says_that_it_wants_a_graphics_card():
    large = [known for known in KNOWN_WEIGHTS.values() if known.params >= 300]
    assert len(large) == 6  # MaskBit and Halton-MaskGIT's large
    assert all(
        ModelEntry("", "", known).facts().count("ants a graphics card") == 1 for known in large
    )


def test_published_numbers():
    def facts(name):
        config = KNOWN_WEIGHTS[name].sampling
        return config.num_steps, round(config.guidance_scale - 1, 6), config.choice_temperature

    halton = {(256, "tiny"): 1.5, (256, "small"): 1.0, (256, "base"): 0.7}
    halton |= {(384, "small"): 1.0, (384, "base"): 0.7, (384, "large"): 0.5}
    for (size, label), weight in halton.items():
        known = KNOWN_WEIGHTS[f"imagenet-{size}-{label}"].sampling
        assert (known.num_steps, round(known.guidance_scale - 1, 6)) == (32, weight)
        assert (known.order, known.guidance_schedule) == ("halton", "constant")
        assert known.first_step_temperature == 2
    assert facts("maskgit-v1-256") == (8, 3.0, 4.5) and facts("maskgit-v1-512") == (15, 2.8, 7.0)
    for size in (256, 512):
        known = KNOWN_WEIGHTS[f"maskgit-v1-{size}"].sampling
        assert (known.noise_schedule, known.schedule) == ("endpoints", "arccos_increments")
        google = KNOWN_WEIGHTS[f"google-{size}"].sampling
        assert (google.schedule, google.guidance_scale) == ("cosine", 1.0)
    assert (facts("google-256")[0], facts("google-512")[0]) == (8, 12)
    best = google_sampling(16).presets["Best"]
    assert (best.num_steps, best.schedule, best.choice_temperature) == (32, "linear", 4.5)


def test_a_models_other_settings_are_presets_of_the_page():
    google = google_sampling(16)
    presets = presets_for(google.usual, google.presets, guided=False)
    assert list(presets) == ["Fast", "Recommended", "Best"]
    assert (presets["Best"]["num_steps"], presets["Best"]["schedule"]) == (32, "linear")
    slow = PublishedSampling(OTHER, {"Best": replace(OTHER, num_steps=MAX_STEPS + 1)})
    assert list(presets_for(slow.usual, slow.presets)) == ["Fast", "Recommended"]
