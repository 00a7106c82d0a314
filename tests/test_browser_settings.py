"""What a browser kept of the settings, read back as something not to be trusted."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.presets import CUSTOM, PRESETS
from demo.tabs.browser_settings import read_settings, with_presets

WIDGETS = {
    "what": gr.Radio(["Order", "Steps"]),
    "class": gr.Dropdown([("Rose", "rose"), ("Sea", "sea")]),
    "sides": gr.CheckboxGroup(["left", "right"]),
    "count": gr.Slider(1, 4, step=1),
    "share": gr.Slider(0, 1, step=0.05),
    "seed": gr.Number(1, precision=0),
}
GOOD = {"what": "Steps", "class": "sea", "sides": ["left"], "count": 3, "share": 0.4, "seed": 7}


def kept(values: Any, model: str = "m") -> str:
    return json.dumps({"model": model, "values": values})


def test_what_makes_sense_comes_back() -> None:
    assert read_settings(kept(GOOD), "m", WIDGETS) == GOOD


def test_settings_of_another_model_are_left_out() -> None:
    assert read_settings(kept(GOOD, "other"), "m", WIDGETS) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("what", "Guidance"),
        ("what", ["Order"]),
        ("class", "<script>"),
        ("sides", "left"),
        ("sides", ["up"]),
        ("sides", ["left"] * 9),
        ("count", 9),
        ("count", 1.5),
        ("count", "x"),
        ("share", -0.1),
        ("seed", -1),
        ("seed", None),
        ("unknown", 1),
    ],
)
def test_only_the_nonsense_is_left_out(name: str, value: Any) -> None:
    found = read_settings(kept({**GOOD, name: value}), "m", WIDGETS)
    assert found == {key: old for key, old in GOOD.items() if key != name}


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(GOOD)), inner),
    max_leaves=8,
)


@given(junk | st.text())
def test_nothing_that_a_browser_sends_is_an_error(value: Any) -> None:
    assert read_settings(value, "m", WIDGETS) == {} or isinstance(value, str)
    assert set(read_settings(kept(value), "m", WIDGETS)) <= set(GOOD)


def test_a_preset_counts_more_than_its_closed_fold() -> None:
    found = with_presets({"edit-preset": "Fast", "edit-num_steps": 12}, PRESETS)
    assert found["edit-num_steps"] == PRESETS["Fast"]["num_steps"]
    custom = {"edit-preset": CUSTOM, "edit-num_steps": 5}
    assert with_presets(custom, PRESETS) == custom
