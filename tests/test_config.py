"""Settings are checked when they are built, and an error says what would be right."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from maskgit_core import TokenizerTrainConfig, TrainConfig, TransformerTrainConfig
from maskgit_core.config import (
    MAX_SEED,
    ORDERS,
    SamplingConfig,
    TokenizerConfig,
    TransformerConfig,
    check_range,
    from_dict,
    to_dict,
)


@pytest.mark.parametrize(
    "config",
    [
        tiny.TOKENIZER,
        tiny.TRANSFORMER,
        tiny.FIRST,
        tiny.SECOND,
        SamplingConfig(),
    ],
)
def test_a_configuration_survives_json(config):
    text = json.dumps(to_dict(config))
    assert from_dict(type(config), json.loads(text)) == config


def test_settings_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        SamplingConfig().num_steps = 3


def test_lists_are_taken_as_tuples():
    listed = TokenizerConfig(
        image_size=16, widths=[8, 16], encoder_blocks=[1, 1], decoder_blocks=[1, 1]
    )
    assert listed.widths == (8, 16)
    assert hash(listed) == hash(replace(listed))


@pytest.mark.parametrize(
    ("key", "near"), [("temprature", "temperature"), ("steps", "num_steps"), ("topk", "top_k")]
)
def test_an_unknown_setting_names_the_nearest(key, near):
    with pytest.raises(ValueError, match=f"unknown setting '{key}'.*did you mean '{near}'"):
        from_dict(SamplingConfig, {key: 1})


@pytest.mark.parametrize("values", [None, [], "num_steps", 3, [["num_steps", 3]]])
def test_no_object_is_an_error(values):
    with pytest.raises(ValueError, match="SamplingConfig must be an object"):
        from_dict(SamplingConfig, values)


@pytest.mark.parametrize(
    ("config_class", "name", "value", "allowed"),
    [
        (SamplingConfig, "num_steps", 0, "at least 1"),
        (SamplingConfig, "num_steps", 1.5, "whole number"),
        (SamplingConfig, "num_steps", True, "whole number"),
        (SamplingConfig, "num_steps", "12", "whole number"),
        (SamplingConfig, "order", "hilbert", ", ".join(ORDERS)),
        (SamplingConfig, "order", ["random"], "random"),
        (SamplingConfig, "schedule", "cos", "cosine, arccos, linear, square, root"),
        (SamplingConfig, "guidance_schedule", "none", "constant, linear, cosine, revealed"),
        (SamplingConfig, "temperature", -0.1, "between 0.0 and 100.0"),
        (SamplingConfig, "temperature", math.nan, "between"),
        (SamplingConfig, "guidance_scale", math.inf, "between"),
        (SamplingConfig, "choice_temperature", None, "a number"),
        (SamplingConfig, "top_k", 0, "at least 1"),
        (SamplingConfig, "top_p", 0.0, "above 0"),
        (SamplingConfig, "top_p", 1.01, "between 0.0 and 1.0"),
        (TokenizerConfig, "image_size", 100, "multiple of 8"),
        (TokenizerConfig, "image_size", 4, "at least 8"),
        (TokenizerConfig, "widths", (), "at least one"),
        (TokenizerConfig, "widths", (64, 128, 250), "multiples of 8"),
        (TokenizerConfig, "widths", (64, 128, 256.0), "whole number"),
        (TokenizerConfig, "widths", 64, "a list"),
        (TokenizerConfig, "encoder_blocks", (1, 1), "one entry for each of the 3 widths"),
        (TokenizerConfig, "decoder_blocks", (1, -1, 1), "between 0 and"),
        (TokenizerConfig, "encoder_blocks", (1, 10**9, 1), "between 0 and"),
        (TokenizerConfig, "codebook_size", 1, "at least 2"),
        (TokenizerConfig, "l2_normalize", "yes", "true or false"),
        (TransformerConfig, "depth", 0, "between 1 and"),
        (TransformerConfig, "num_heads", 300, "not exceed width 256"),
        (TransformerConfig, "merge", 5, "divide grid_size 12"),
        (TransformerConfig, "dropout", 1.0, "between 0.0 and 0.99"),
        (TransformerConfig, "kind", "unet", "class_token, adaln"),
        (TrainConfig, "batch_size", 0, "at least 1"),
        (TrainConfig, "seed", -1, "between 0"),
        (TrainConfig, "seed", MAX_SEED + 1, "between 0"),
        (TrainConfig, "learning_rate", math.inf, "at least 0"),
        (TrainConfig, "learning_rate", math.nan, "at least 0"),
        (TransformerTrainConfig, "label_drop_prob", 1.5, "between 0.0 and 1.0"),
        (TrainConfig, "ema_decay", 1.0, "between 0.0 and 0.99999"),
        (TokenizerTrainConfig, "freeze_codes", 1, "true or false"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(config_class, name, value, allowed):
    with pytest.raises(ValueError, match=name) as caught:
        config_class(**{name: value})
    assert allowed in str(caught.value)


@given(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none()))
def test_check_range_takes_numbers_in_range_and_nothing_else(value):
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and 0 <= value <= 10:
        check_range("value", value, 0, 10)
    else:
        with pytest.raises(ValueError, match="value must be a number between 0 and 10; got"):
            check_range("value", value, 0, 10)


@given(st.integers(1, 5), st.integers(1, 6))
def test_stride_and_grid_follow_from_the_widths(levels, cells):
    config = TokenizerConfig(
        image_size=cells * 2**levels,
        widths=(8,) * levels,
        encoder_blocks=(1,) * levels,
        decoder_blocks=(1,) * levels,
    )
    assert config.patch_stride == 2**levels
    assert config.grid_size == cells
