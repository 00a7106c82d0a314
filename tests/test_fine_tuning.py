"""New classes in an old model, photos set aside, and folders that are no set of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from maskgit_core.data.checks import check_data
from maskgit_core.data.photos import Photos
from maskgit_core.training.fine_tuning import labels_in, merged_classes, set_aside, with_classes


@pytest.mark.parametrize("kind", ["class_token", "adaln"])
def test_known_classes_answer_as_before_and_new_ones_nearly_as_no_class(kind):
    model = tiny.transformer(kind=kind)
    before, after = list(tiny.CLASSES), ["new", tiny.CLASSES[2], "newer", tiny.CLASSES[0]]
    built = with_classes(model, before, after).eval()
    tokens = torch.randint(0, 33, (1, 16), generator=torch.Generator().manual_seed(1))

    def logits(network: torch.nn.Module, label: int) -> torch.Tensor:
        with torch.no_grad():
            return network(tokens, torch.tensor([label]))

    assert torch.equal(logits(built, 1), logits(model, 2))
    assert torch.equal(logits(built, 3), logits(model, 0))
    assert torch.equal(logits(built, built.null_label), logits(model, model.null_label))
    null = logits(model, model.null_label)
    off = [(logits(built, new) - null).abs().mean() for new in (0, 2)]
    assert 0 < max(off) < (logits(model, 2) - null).abs().mean()
    assert not torch.equal(logits(built, 0), logits(built, 2))


def test_classes_are_matched_whatever_their_case():
    assert merged_classes(["Sea", "b"], ["a", "SEA"], keep=True) == ["Sea", "b", "a"]
    assert merged_classes(["Sea", "b"], ["a", "SEA"], keep=False) == ["a", "SEA"]
    assert labels_in(["Sea", "b", "a"], ["a", "SEA"]) == [2, 0]


def test_photos_are_set_aside_from_large_classes_only():
    labels = torch.tensor([0] * 25 + [1] * 9)
    pixels = np.arange(34, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    photos = Photos(pixels, labels, ["a", "b"], [])
    kept, held = set_aside(photos)
    assert held.pixels[:, 0, 0, 0].tolist() == [23, 24]
    assert sorted([*kept.pixels[:, 0, 0, 0], *held.pixels[:, 0, 0, 0]]) == list(range(34))
    assert kept.labels.tolist() == [0] * 23 + [1] * 9
    few = Photos(pixels[25:], labels[25:], ["a", "b"], [])
    assert set_aside(few) == (few, None)


def test_odd_folders_are_told(tmp_path):
    one = tiny.write_photos(tmp_path / "one", ["cat"], count=1)
    found, warnings = check_data(one)
    assert found.classes == ["cat"]
    assert ["one class only, cat" in w for w in warnings] == [True, False, False]
    assert "One photo only: cat" in warnings[1]
    assert "1 photo in all" in warnings[2]

    flat = tmp_path / "flat"
    flat.mkdir()
    for index in range(3):
        tiny.picture(index).save(flat / f"{index}.png")
    with pytest.raises(ValueError, match="the 3 photos in .* lie side by side"):
        check_data(flat)
    tiny.write_photos(flat, ["cat", "dog"])
    assert "3 photos directly in" in check_data(flat)[1][0]

    packed = tiny.write_photos(tmp_path / "outer" / "inner", ["cat", "dog"])
    with pytest.raises(ValueError, match="cat, dog: if these are the classes, give .*inner"):
        check_data(packed.parent)
    # Folders inside a class are part of the class.
    tiny.write_photos(tmp_path / "deep" / "animals", ["cat", "dog"])
    tiny.write_photos(tmp_path / "deep", ["plants"])
    assert check_data(tmp_path / "deep")[0].classes == ["animals", "plants"]
    with pytest.raises(ValueError, match="is not one"):
        check_data(tmp_path / "none")
