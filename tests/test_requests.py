"""Settings, links and recipes: what is accepted, and what is refused in one sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo import messages
from demo.presets import PRESETS, preset_of
from demo.runs import recipes
from demo.runs.generate import parse_generate
from demo.settings import FIELDS, RequestError, build_config, match_class, parse_seed, shown_values
from maskgit_core.config import SamplingConfig
from maskgit_core.recipes import generate_recipe

CLASSES = ["forest", "sea", "été"]


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, True, "abc", "", "1e99", "nan", "inf", -1, 2**31, 0.5, "٣x", [], {}]
)
def test_seed_that_is_none_is_refused(value) -> None:
    with pytest.raises(RequestError, match="^Seed must be a whole number"):
        parse_seed(value)


@pytest.mark.parametrize(("value", "seed"), [(0, 0), ("7", 7), (" 8 ", 8), (3.0, 3), ("4.0", 4)])
def test_seed_may_come_as_text(value, seed: int) -> None:
    assert parse_seed(value) == seed


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_valid_and_known_by_their_values(name: str) -> None:
    config = build_config(PRESETS[name])
    assert preset_of(PRESETS[name]) == name
    assert shown_values(config) == PRESETS[name]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_is_bounded_and_reaches_the_configuration(field) -> None:
    bad = ["nonsense", None] if field.choices else [field.low - 1, field.high + 1, "x", None]
    for value in bad:
        with pytest.raises(RequestError, match=field.label):
            build_config({field.name: value})
    seen = set()
    for value in field.choices or (field.low, (field.low + field.high) / 2, field.high):
        shown = int(value) if field.whole else value
        seen.add(getattr(build_config({field.name: shown}), field.name))
    assert len(seen) >= 2


def test_off_means_none() -> None:
    config = build_config({"top_k": 0, "top_p": 1})
    assert config.top_k is None and config.top_p is None


def test_unknown_setting_is_named() -> None:
    with pytest.raises(RequestError, match="'steps' is no setting"):
        build_config({"steps": 3})


@pytest.mark.parametrize(
    ("name", "index"),
    [
        *(("sea", 1), ("SEA", 1), (" Été ", 2), ("e\u0301te\u0301", 2)),
        *((0, 0), ("1", 1), (" 2 ", 2)),
    ],
)
def test_class_by_name_in_any_case_or_number(name, index: int) -> None:
    assert match_class(name, CLASSES) == index


@pytest.mark.parametrize("name", ["", "seas", -1, 3, "3", "-1", "1.0", "none", True, None, "<b>"])
def test_unknown_class_lists_known_ones(name) -> None:
    with pytest.raises(RequestError, match="forest, sea"):
        match_class(name, CLASSES)


# ---- links and recipes ---------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["class", "images", "seed", "order", "top_p", "num_steps", "__theme", "x"]
            ),
            st.text(),
        ),
        max_size=12,
    )
)
def test_a_link_is_never_an_error_and_never_out_of_range(parameters) -> None:
    found = recipes.settings_from_link(CLASSES, parameters)
    if found is not None:
        build_config({field.name: found[field.name] for field in FIELDS})
        assert 1 <= found.get("count", 1) <= 16
        parse_seed(found.get("seed", 0))
        assert set(found.get("classes", [])) <= set(CLASSES)


def test_a_link_is_clamped() -> None:
    found = recipes.settings_from_link(
        CLASSES,
        [
            ("class", "sea"),
            ("class", "moon"),
            ("images", "900"),
            ("num_steps", "0"),
            ("order", "halton"),
            ("temperature", "nan"),
            ("seed", "-3"),
        ],
    )
    assert found["classes"] == ["sea"]
    assert (found["count"], found["num_steps"], found["order"]) == (16, 1, "halton")
    assert found["temperature"] == 1.0 and "seed" not in found


def test_a_link_without_settings_changes_nothing() -> None:
    assert recipes.settings_from_link(CLASSES, [("__theme", "dark")]) is None


def test_recipe_of_a_run_reproduces_its_request(tiny_model) -> None:
    request = parse_generate(
        tiny_model, ["sea", "forest"], 3, 5, {"num_steps": 4, "order": "halton", "top_k": 3}
    )
    text = json.dumps(request.recipe)
    found = recipes.settings_from_recipe(list(tiny_model.classes), text)
    again = parse_generate(
        tiny_model,
        found["classes"],
        found["count"],
        found["seed"],
        {field.name: found[field.name] for field in FIELDS},
    )
    assert again == request


@pytest.mark.parametrize(
    "classes",
    [["sea", "sea", "forest"], ["sea", "forest", "forest", "sea"], ["forest"], ["sea", "sea"]],
)
@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_recipe_that_repeats_classes_makes_the_same_images(tiny_model, classes, count) -> None:
    request = parse_generate(tiny_model, classes, count, 5, {"num_steps": 2})
    recipe = request.recipe
    for written in (recipe, {**recipe, "classes": classes}):
        found = recipes.settings_from_recipe(list(tiny_model.classes), json.dumps(written))
        again = parse_generate(
            tiny_model, found["classes"], found["count"], found["seed"], {"num_steps": 2}
        )
        assert again == request
    link = [("class", name) for name in recipe["classes"]]
    found = recipes.settings_from_link(list(tiny_model.classes), link)
    assert found["classes"] == recipe["classes"]


def test_a_recipe_that_a_command_wrote_is_opened(tiny_model) -> None:
    config = SamplingConfig(num_steps=3, order="raster", top_k=5)
    names = ["sea", "sea", "forest"]
    written = generate_recipe(tiny_model.name, names, 9, config, "int8")
    assert written["precision"] == "int8" and "top_p" not in written
    found = recipes.settings_from_recipe(list(tiny_model.classes), json.dumps(written))
    values = {field.name: found[field.name] for field in FIELDS}
    assert build_config(values) == config
    assert (found["classes"], found["count"], found["seed"]) == (names, 3, 9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        "[" * 60_000,
        '{"classes": "sea"}',
        '{"classes": ["moon"]}',
        '{"classes": ["sea"], "count": 99}',
        '{"classes": ["sea"], "evil": 1}',
        '{"classes": ["sea"], "num_steps": "many"}',
        " " * 200_000,
    ],
)
def test_bad_recipes_are_refused_in_words(text: str) -> None:
    with pytest.raises(RequestError):
        recipes.settings_from_recipe(CLASSES, text)


# ---- notices -------------------------------------------------------------------------------------


def test_notices_never_carry_markup(monkeypatch) -> None:
    said = []
    monkeypatch.setattr(messages.gr, "Warning", lambda text, **_: said.append(text))
    with messages.explain():
        raise RequestError("There is no class '<img src=x onerror=alert(1)>'.")
    with messages.explain():
        raise KeyError("secret")
    assert "<" not in said[0] and "&lt;img" in said[0]
    assert "secret" not in said[1] and "try again" in said[1]
