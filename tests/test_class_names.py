"""Names of classes: as written first, then whatever the case, then a clear error."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskgit_core.class_names import find_class, match_classes, normal_name
from maskgit_core.inputs import resolve_label

NFC, NFD = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("names", "classes", "places"),
    [
        (["A", "a"], ["A", "a"], [0, 1]),
        (["a", "A"], ["A", "a"], [1, 0]),
        (["ROSE"], ["sea", "rose"], [1]),
        (["rose", "ROSE"], ["rose"], [0, None]),
        (["ROSE"], ["Rose", "rose", "ROSE"], [2]),
        (["Rose", "ROSE"], ["rose", "Rose"], [1, 0]),
        ([NFD], ["cafe", NFC], [1]),
        ([NFC], [NFD], [0]),
        ([NFD.upper()], [NFC], [0]),
        ([" sea "], ["sea"], [0]),
        (["STRASSE"], ["straße"], [0]),
        (["desert"], ["sea"], [None]),
        ([], ["sea"], []),
    ],
)
def test_a_name_is_what_it_is_written_like_first(names, classes, places) -> None:
    assert match_classes(names, classes) == places


def test_what_could_be_two_classes_is_said() -> None:
    with pytest.raises(ValueError, match="'ROSE' could be Rose or rose"):
        find_class("ROSE", ["Rose", "rose"])
    with pytest.raises(ValueError, match="'Rose' and 'ROSE' differ in case only.* 'rose'"):
        match_classes(["Rose", "ROSE"], ["rose"])


@given(st.lists(st.text(max_size=3), unique_by=normal_name, max_size=6), st.randoms())
def test_every_class_is_found_by_its_own_name(classes, random) -> None:
    order = list(range(len(classes)))
    random.shuffle(order)
    names = [unicodedata.normalize("NFD", classes[place]) for place in order]
    assert match_classes(names, classes) == order


def test_a_label_is_a_class_by_the_same_rule() -> None:
    classes = ["Rose", "rose", NFC]
    assert [resolve_label(name, classes, None) for name in ("rose", "Rose", NFD.upper())] == [
        1,
        0,
        2,
    ]
    with pytest.raises(ValueError, match="^label must name one class; 'ROSE' could be"):
        resolve_label("ROSE", classes, None)
