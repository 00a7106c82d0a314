"""New classes in an old model, photos set aside, and folders that are no set of classes."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
import torch

import tiny
from maskgit_core.data.checks import check_data
from maskgit_core.data.photos import Photos
from maskgit_core.networks.vqgan import VQGAN, VQGANConfig
from maskgit_core.training.fine_tuning import (
    adapted_tokenizer,
    adapted_transformer,
    check_same_tokens,
    interpolated_cells,
    labels_in,
    merged_classes,
    set_aside,
)


@pytest.mark.parametrize("kind", ["class_token", "adaln"])
def test_known_classes_answer_as_before_and_new_ones_like_none_of_them(kind):
    model = tiny.transformer(kind=kind)
    before, after = list(tiny.CLASSES), ["new", tiny.CLASSES[2], "newer", tiny.CLASSES[0]]
    built = adapted_transformer(model, before, after).model
    assert not built.training
    tokens = torch.randint(0, 33, (1, 16), generator=torch.Generator().manual_seed(1))

    def logits(network: torch.nn.Module, label: int) -> torch.Tensor:
        with torch.no_grad():
            return network(tokens, torch.tensor([label]))

    assert torch.equal(logits(built, 1), logits(model, 2))
    assert torch.equal(logits(built, 3), logits(model, 0))
    assert torch.equal(logits(built, built.null_label), logits(model, model.null_label))
    # A new class is as far from the known ones, and from another, as they are from each other.
    rows = built.embedding.weight[33:] if kind == "class_token" else built.class_embedding.weight
    apart = torch.cdist(rows[:-1], rows[:-1])
    assert apart[0, 2] > apart[1, 3] / 2 and apart[0, 1] > apart[1, 3] / 2
    assert torch.cdist(rows[:1], rows[-1:]).item() > apart[1, 3] / 4
    assert not torch.equal(logits(built, 0), logits(built, 2))


@pytest.mark.parametrize("side", [2, 3, 6, 8])
@pytest.mark.parametrize("kind", ["class_token", "adaln"])
def test_another_grid_keeps_everything_but_the_tables_of_cells(kind, side):
    model = tiny.transformer(kind=kind)
    built, notes = adapted_transformer(model, tiny.CLASSES, tiny.CLASSES, side)
    assert built.config.grid_size == side and notes == [
        f"The table of positions was interpolated from 4 x 4 to {side} x {side} tokens."
    ]
    before, after = model.state_dict(), built.state_dict()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {"position"} | ({"bias"} if kind == "class_token" else set())
    if kind == "class_token":  # the class has no place in the grid
        assert torch.equal(before["position"][-1], after["position"][-1])
        assert torch.equal(before["bias"][-1], after["bias"][-1])
    tokens = torch.randint(0, 33, (2, side**2), generator=torch.Generator().manual_seed(1))
    assert built(tokens, torch.tensor([0, 3])).isfinite().all()


def test_a_table_of_cells_is_interpolated_over_both_axes():
    places = torch.stack(torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij"), -1)
    table = (places.flatten(0, 1) + 0.5) / 12  # (row, column) of the middle of each cell
    larger = interpolated_cells(table, 12, 16).unflatten(0, (16, 16))
    wanted = (torch.arange(16) + 0.5) / 16
    # A plane stays a plane but for the rim, where there is nothing beyond the last cell.
    inner = slice(2, 14)
    rows, columns = larger[inner, inner].unbind(-1)
    torch.testing.assert_close(rows, wanted[inner, None].expand(12, 12), atol=5e-3, rtol=0)
    torch.testing.assert_close(columns, wanted[None, inner].expand(12, 12), atol=5e-3, rtol=0)
    flat = interpolated_cells(torch.full((144, 1), 3.0), 12, 7)
    torch.testing.assert_close(flat, torch.full((49, 1), 3.0))
    assert torch.equal(interpolated_cells(table, 12, 12), table)


def test_notes_say_what_was_kept_added_and_left_out():
    model = tiny.transformer()
    same = adapted_transformer(model, tiny.CLASSES, tiny.CLASSES, 4)
    assert same.model is model and same.notes == []
    _, notes = adapted_transformer(model, tiny.CLASSES, ["SEA", "cat"], 6)
    assert notes[0].endswith("from 4 x 4 to 6 x 6 tokens.")
    assert notes[1:] == [
        "Classes kept with their rows: SEA.",
        (
            "Classes added: cat; each starts at the mean of the known ones, with noise of their "
            "spread."
        ),
        "Classes left out, the data does not show them: forest, été.",
    ]
    assert "none." in adapted_transformer(model, tiny.CLASSES, ["a"])[1][0]
    alone = adapted_transformer(tiny.transformer(num_classes=1), ["a"], ["a", "b"]).model
    assert alone.embedding.weight.isfinite().all()


def test_a_network_that_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="2 x 2 tokens as one, which must divide the grid; got"):
        adapted_transformer(tiny.transformer(kind="adaln", merge=2), tiny.CLASSES, ["a"], 5)
    with pytest.raises(ValueError, match="own kinds"):
        adapted_transformer(tiny.tokenizer(), tiny.CLASSES, ["a"], 5)


def test_a_tokenizer_reads_photos_of_another_size():
    tokenizer = tiny.tokenizer()
    assert adapted_tokenizer(tokenizer, 16) == (tokenizer, [])
    built, notes = adapted_tokenizer(tokenizer, 24)
    assert (built.config.image_size, built.config.grid_size) == (24, 6)
    assert tokenizer.config.image_size == 16 and not built.training
    assert notes == [
        (
            "The tokenizer of 16 x 16 pixels reads 24 x 24 pixels, 6 x 6 tokens; its weights fit "
            "every size."
        )
    ]
    images = torch.nn.functional.interpolate(tiny.images(), size=24)
    assert torch.equal(built.encode_to_tokens(images), tokenizer.encode_to_tokens(images))
    for size in (0, -4, 2, 18):
        with pytest.raises(ValueError, match=f"image_size must be a multiple of 4, .*got {size}"):
            adapted_tokenizer(tokenizer, size)
    with pytest.raises(ValueError, match="image_size must be 32 as in the checkpoint"):
        adapted_tokenizer(
            VQGAN(VQGANConfig(image_size=32, stem_width=32, widths=(32, 32), attention_levels=())),
            64,
        )


def test_tokens_of_another_tokenizer_are_told():
    ours = tiny.tokenizer()
    rounded, decoder, encoder, codes = (tiny.tokenizer() for _ in range(4))
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.half())
        decoder.decoder.head.weight += 1
        encoder.encoder.head.weight += 1
        codes.quantizer.codebook[3] += 1
    for same in (ours, rounded, decoder, adapted_tokenizer(ours, 32).model):
        assert check_same_tokens(ours, same, "init", "there") == []
    for other, says in (
        (encoder, "there was trained with another encoder"),
        (codes, "there was trained with other codes"),
        (tiny.tokenizer(codebook_size=16), "codes of the tokenizer, 32; there has 16"),
        (tiny.tokenizer(widths=(8, 24)), "there has another kind"),
        (tiny.tokenizer(1), "there was trained with other codes"),
    ):
        with pytest.raises(ValueError, match=says):
            check_same_tokens(ours, other, "init", "there")
        if other is not codes:  # which is one code of 32
            with pytest.raises(ValueError, match=says):
                check_same_tokens(ours, other, "init", "there", may_move=True)


def test_codes_that_moved_a_little_keep_their_meaning():
    ours, moved, shuffled = (tiny.tokenizer() for _ in range(3))
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
        book = shuffled.quantizer.codebook
        book.copy_(book[torch.arange(32).roll(1)])
    said = check_same_tokens(ours, moved, "init", "there", may_move=True)
    assert said == ["The codes of there have moved a little since; its transformer adapts to them."]
    for other, may_move in ((moved, False), (shuffled, True)):
        with pytest.raises(ValueError, match="there was trained with other codes"):
            check_same_tokens(ours, other, "init", "there", may_move=may_move)


def test_classes_are_matched_whatever_their_case_and_form_of_accents():
    assert merged_classes(["Sea", "b"], ["a", "SEA"], keep=True) == ["Sea", "b", "a"]
    assert merged_classes(["Sea", "b"], ["a", "SEA"], keep=False) == ["a", "SEA"]
    assert labels_in(["Sea", "b", "a"], ["a", "SEA"]) == [2, 0]
    # Folders written by macOS come with accents as letters of their own.
    apart = unicodedata.normalize("NFD", "été")
    assert apart != "été" and merged_classes(["été"], [apart], keep=True) == ["été"]
    assert labels_in(["sea", "été"], [apart]) == [1]
    notes = adapted_transformer(tiny.transformer(), tiny.CLASSES, [apart])[1]
    assert notes[0] == f"Classes kept with their rows: {apart}." and "added" not in notes[1]


def test_names_that_differ_in_case_only_are_two_classes():
    assert merged_classes(["a", "b"], ["A", "a"], keep=True) == ["a", "b", "A"]
    assert merged_classes(["a"], ["A", "a"], keep=False) == ["A", "a"]
    assert labels_in(["a", "b", "A"], ["A", "a"]) == [2, 0]
    with pytest.raises(ValueError, match="'SEA' and 'Sea' differ in case only"):
        merged_classes(["sea"], ["SEA", "Sea"], keep=True)
    nfd = unicodedata.normalize("NFD", "été")
    assert merged_classes(["été"], [nfd], keep=True) == ["été"]


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
    tiny.write_photos(tmp_path / "case", ["Cat", "cat", "dog"])
    _, warnings = check_data(tmp_path / "case")
    assert "Cat, cat differ in case only; each is a class of its own." in warnings
    # Folders inside a class are part of the class.
    tiny.write_photos(tmp_path / "deep" / "animals", ["cat", "dog"])
    tiny.write_photos(tmp_path / "deep", ["plants"])
    assert check_data(tmp_path / "deep")[0].classes == ["animals", "plants"]
    with pytest.raises(ValueError, match="is not one"):
        check_data(tmp_path / "none")
