"""Training photos and held-out ones: one rule for the names of their folders, and of classes."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

import tiny
from maskgit_core.data.folders import (
    HELD_OUT,
    evaluation_folders,
    labels_of,
    split_folders,
    training_folders,
)
from maskgit_core.data.photos import pack_photos, scan_folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tiny.write_photos(tmp_path / "data" / "train", ["land", "sea"], count=2)
    return tmp_path / "data"


@pytest.mark.parametrize("name", [*HELD_OUT, "Validation", "TEST"])
def test_training_and_evaluation_find_the_same_held_out_folder(data: Path, name: str) -> None:
    tiny.write_photos(data / name, ["sea"], count=1)
    wanted = (data / "train", data / name)
    assert training_folders(data) == evaluation_folders(data) == split_folders(data) == wanted


def test_the_first_name_that_is_there_is_taken(data: Path) -> None:
    for name in reversed(HELD_OUT):
        tiny.write_photos(data / name, ["sea"], count=1)
        assert training_folders(data).val == evaluation_folders(data).val == data / name


def test_a_folder_of_its_own_for_held_out_photos_wins(data: Path, tmp_path: Path) -> None:
    other = tiny.write_photos(tmp_path / "other", ["sea"], count=1)
    tiny.write_photos(data / "val", ["sea"], count=1)
    for find in (training_folders, evaluation_folders):
        assert find(data, val=other) == (data / "train", other)
        # And of one that is split itself, the held-out part.
        assert find(data, val=data).val == data / "val"
    assert evaluation_folders(data / "val").train is None
    assert evaluation_folders(data / "val", train=data).train == data / "train"
    assert evaluation_folders(data / "train", val=other) == (data / "train", other)


def test_classes_may_have_such_names(tmp_path: Path) -> None:
    root = tiny.write_photos(tmp_path / "flat", ["car", "train", "test"], count=1)
    assert split_folders(root) == (None, None)
    assert training_folders(root) == (root, None)
    assert evaluation_folders(root) == (None, root)
    tiny.write_photos(tmp_path / "nested" / "test", ["2019", "2020"], count=1)
    root = tiny.write_photos(tmp_path / "nested", ["car"], count=1)
    assert training_folders(root) == (root, None)
    assert evaluation_folders(root) == (None, root)


def test_mistakes_are_named(data: Path, tmp_path: Path) -> None:
    for find in (training_folders, evaluation_folders):
        with pytest.raises(ValueError, match="^data must be a directory.*missing"):
            find(tmp_path / "missing")
        with pytest.raises(ValueError, match="^val must be a directory.*missing"):
            find(data, val=tmp_path / "missing")
    with pytest.raises(ValueError, match="^train must be a directory.*missing"):
        evaluation_folders(data / "train", train=tmp_path / "missing")
    with pytest.raises(ValueError, match="^data must hold val/ beside train/"):
        evaluation_folders(data)
    for root in ("mixed", "alone"):
        tiny.write_photos(tmp_path / root / "val", ["land", "sea"], count=1)
    tiny.write_photos(tmp_path / "mixed", ["land", "sea"], count=1)
    for root in ("mixed", "alone"):
        assert evaluation_folders(tmp_path / root) == (None, tmp_path / root / "val")
        with pytest.raises(ValueError, match="^data must hold train/ beside val/"):
            training_folders(tmp_path / root)


def test_labels_are_found_by_the_name_first_and_by_its_letters_then(tmp_path: Path) -> None:
    where = {"where": tmp_path, "whose": "the checkpoint"}
    assert labels_of(["a", "A"], ["A", "b", "a"], **where) == [2, 0]
    assert labels_of(["B"], ["A", "b", "a"], **where) == [1]
    with pytest.raises(ValueError, match="the checkpoint does not know: A .*; it knows a, b"):
        labels_of(["A", "a"], ["a", "b"], **where)
    with pytest.raises(ValueError, match="^data must hold one folder per class; in .* could be"):
        labels_of(["ROSE"], ["Rose", "rose"], **where)


def test_folders_that_differ_in_case_are_two_classes(tmp_path: Path) -> None:
    root = tiny.write_photos(tmp_path, ["a", "A", "b"], count=1)
    folder = scan_folder(root)
    assert folder.classes == ["A", "a", "b"] and folder.labels == [0, 1, 2]


def test_forms_of_an_accent_are_one_class(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    one = scan_folder(tiny.write_photos(tmp_path / "one", [nfd, "cafz"], count=2))
    other = scan_folder(tiny.write_photos(tmp_path / "other", [nfc, "cafz"], count=2))
    assert one.classes == other.classes == ["cafz", nfc]
    assert one.labels == other.labels
    both = scan_folder(tiny.write_photos(tmp_path / "both", [nfc, nfd], count=2))
    assert both.classes == [nfc] and both.labels == [0] * 4
    assert len(set(both.files)) == 4
    assert all((both.root / name).is_file() for name in both.files)
    assert pack_photos(tmp_path / "both", 16).labels.tolist() == [0] * 4


def test_a_cache_of_other_labels_is_not_taken(tmp_path: Path) -> None:
    root, cache = tiny.write_photos(tmp_path / "data", ["a", "b"], count=2), tmp_path / "cache"
    first = pack_photos(root, 16, cache_dir=cache)
    (root / "a" / "1.png").rename(root / "b" / "3.png")
    again = pack_photos(root, 16, cache_dir=cache)
    assert again.labels.tolist() == [0, 1, 1, 1]
    assert np.array_equal(again.pixels[3], first.pixels[1])
