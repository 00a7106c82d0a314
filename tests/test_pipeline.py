"""The public surface: names, shapes, errors, and what a seed and a label promise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from maskgit_core import CheckpointError, MaskGIT, SamplingConfig
from maskgit_core.config import MAX_SEED, ORDERS, to_dict
from maskgit_core.decoding import codebook_patches
from maskgit_core.pipeline import MAX_IMAGES
from maskgit_core.weights.checkpoint import Checkpoint, save_checkpoint

QUICK = SamplingConfig(num_steps=3)
SHIPPED = Path(__file__).parent.parent / "checkpoints" / "scenes-flowers"
K = tiny.TOKENIZER.codebook_size


def test_a_model_tells_its_shape(tiny_checkpoint):
    model = MaskGIT.from_pretrained(tiny_checkpoint)
    assert model.classes == tiny.CLASSES
    assert (model.image_size, model.grid_size) == (16, 4)
    assert (model.mask_token_id, model.null_label) == (K, len(tiny.CLASSES))
    assert MaskGIT.from_pretrained(str(tiny_checkpoint)).classes == model.classes
    assert model.to("cpu") is model and model.device == torch.device("cpu")


def test_a_tokenizer_alone_is_no_model(tmp_path):
    save_checkpoint(tmp_path, tokenizer=tiny.tokenizer(), classes=["a"])
    with pytest.raises(CheckpointError, match="holds a tokenizer only"):
        MaskGIT.from_pretrained(tmp_path)


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        MaskGIT.from_pretrained(tmp_path / "nowhere")
    for name in ("", "x" * 5000, "a\0b"):
        with pytest.raises(CheckpointError):
            MaskGIT.from_pretrained(name)


def test_generate_uses_what_the_checkpoint_recommends(tmp_path):
    save_checkpoint(
        tmp_path,
        tokenizer=tiny.tokenizer(),
        transformer=tiny.transformer(),
        classes=list(tiny.CLASSES),
        sampling=SamplingConfig(num_steps=5),
    )
    model = MaskGIT.from_pretrained(tmp_path)
    assert [step.num_steps for step in model.generate_steps(["sea"])] == [5] * 5


def test_generate(tiny_model):
    result = tiny_model.generate(labels=["sea", 2, None], config=QUICK, seed=3)
    assert result.images.shape == (3, 3, 16, 16) and result.images.dtype == torch.float32
    assert -1 <= result.images.min() and result.images.max() <= 1
    assert result.tokens.shape == (3, 4, 4) and result.tokens.dtype == torch.int64
    assert 0 <= result.tokens.min() and result.tokens.max() < K
    assert torch.equal(result.images, tiny_model.decode(result.tokens))
    again = tiny_model.generate(labels=["sea", 2, None], config=QUICK, seed=3)
    assert torch.equal(again.tokens, result.tokens) and torch.equal(again.images, result.images)
    other = tiny_model.generate(labels=["sea", 2, None], config=QUICK, seed=6)
    assert not torch.equal(other.tokens, result.tokens)


def test_what_is_returned_may_be_changed(tiny_model):
    result = tiny_model.generate(labels=[0], config=QUICK)
    result.images.mul_(0.5)
    result.tokens.fill_(tiny_model.mask_token_id)
    tiny_model.encode(tiny.images(1)).fill_(3)
    tiny_model.decode(torch.zeros(1, 4, 4, dtype=torch.int64)).zero_()
    for step in tiny_model.generate_steps([0], QUICK):
        step.tokens.fill_(0)
        step.confidence.zero_()
        assert torch.is_grad_enabled()
    assert not result.images.requires_grad


@pytest.mark.parametrize("order", ORDERS)
def test_steps_fill_the_grid_and_end_in_the_result(tiny_model, order):
    config = SamplingConfig(num_steps=5, order=order)
    masked, index = torch.ones(2, 4, 4, dtype=torch.bool), -1
    for index, step in enumerate(tiny_model.generate_steps(["forest", 1], config, seed=9)):
        assert (step.index, step.num_steps) == (index, 5)
        assert step.tokens.shape == step.newly_revealed.shape == step.confidence.shape == (2, 4, 4)
        assert step.tokens.dtype == torch.int64 and step.confidence.dtype == torch.float32
        assert step.newly_revealed.dtype == torch.bool
        assert step.newly_revealed.flatten(1).any(1).all()
        assert not (step.newly_revealed & ~masked).any()
        masked &= ~step.newly_revealed
        assert torch.equal(step.tokens == K, masked)
        assert torch.equal(step.confidence.isnan(), masked)
        assert (step.confidence[~masked] <= 0).all()
        assert torch.is_grad_enabled()
    assert index == 4 and not masked.any()
    result = tiny_model.generate(["forest", 1], config, seed=9)
    assert torch.equal(result.tokens, step.tokens)


def test_an_image_does_not_depend_on_its_batch(tiny_model):
    labels, config = ["sea", "forest", 2, None], SamplingConfig(num_steps=6)
    together = tiny_model.generate(labels, config, seed=11)
    alone = tiny_model.generate([2], config, seed=11 + 2)
    assert torch.equal(alone.tokens[0], together.tokens[2])
    torch.testing.assert_close(alone.images[0], together.images[2], atol=1e-5, rtol=0)


def test_an_image_is_the_same_to_the_last_bit_in_any_batch():
    # Of the shipped checkpoint: a small network computes all batches alike.
    model = MaskGIT.from_pretrained(SHIPPED)
    tokens = model.generate([0, 1, 2, 3, 4], QUICK, seed=1).tokens
    assert torch.equal(model.decode(tokens[3:4]), model.decode(tokens)[3:4])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["class_token", "adaln"])
def test_an_autocast_around_changes_nothing(dtype, kind):
    model = MaskGIT(Checkpoint(tiny.tokenizer(), tiny.transformer(kind=kind), list(tiny.CLASSES)))
    photo, mask = tiny.picture(1, (20, 24)), np.zeros((24, 20), dtype=bool)
    mask[4:9, 4:9] = True
    plain = model.generate([0, 1], QUICK), model.inpaint(photo, mask, 0, QUICK)
    with torch.autocast("cpu", dtype):
        cast = model.generate([0, 1], QUICK), model.inpaint(photo, mask, 0, QUICK)
        preview = model.preview(plain[0].tokens)
    assert cast[0].images.dtype == preview.dtype == torch.float32
    assert torch.equal(cast[0].tokens, plain[0].tokens)
    assert torch.equal(cast[0].images, plain[0].images)
    assert cast[1].image.tobytes() == plain[1].image.tobytes()


@pytest.mark.parametrize("config", [{}, {"num_steps": 3}, "fast"])
def test_settings_must_be_a_sampling_config(tiny_model, config):
    with pytest.raises(ValueError, match="config must be a SamplingConfig; got"):
        tiny_model.generate(["sea"], config)


def test_numbers_of_numpy_and_torch_are_numbers(tiny_model):
    expected = tiny_model.generate([0, 2], SamplingConfig(num_steps=3, top_k=4), 5)
    config = SamplingConfig(num_steps=np.int64(3), top_k=np.int32(4), temperature=np.float32(1))
    for labels in (torch.tensor([0, 2]), np.array([0, 2])):
        found = tiny_model.generate(labels, config, np.int64(5))
        assert torch.equal(found.tokens, expected.tokens)
    assert json.dumps(to_dict(config)) == json.dumps(to_dict(SamplingConfig(num_steps=3, top_k=4)))
    with pytest.raises(ValueError, match="label must be a whole number"):
        tiny_model.generate(torch.tensor([0.0]), config)


def test_the_class_changes_the_image(tiny_model):
    tokens = [tiny_model.generate([label], QUICK, seed=0).tokens for label in (0, 1, 2, None)]
    for index, grid in enumerate(tokens):
        assert all(not torch.equal(grid, other) for other in tokens[:index])


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("sea", 1),
        ("SEA", 1),
        (" sea ", 1),
        ("été", 2),
        ("ÉTÉ", 2),
        ("e\u0301te\u0301", 2),
        (0, 0),
        (np.int64(2), 2),
        (None, 3),
    ],
)
def test_labels_by_name_number_or_none(tiny_model, label, number):
    assert tiny_model.label_id(label) == number
    assert type(tiny_model.label_id(label)) is int


def test_the_exact_name_comes_first():
    classes = ["Rose", "rose", "2"]
    model = MaskGIT(Checkpoint(tiny.tokenizer(), tiny.transformer(), classes))
    assert [model.label_id(name) for name in ("Rose", "rose", "2", 2)] == [0, 1, 2, 2]


@pytest.mark.parametrize("label", ["rose", "", "1x", 3, -1, True, 1.0, b"sea", [1]])
def test_an_unknown_class_is_named(tiny_model, label):
    with pytest.raises(ValueError, match="label must be") as caught:
        tiny_model.generate([label], QUICK)
    assert repr(label) in str(caught.value)
    if isinstance(label, str):
        assert "forest, sea, été" in str(caught.value)


@pytest.mark.parametrize("text", ["3", "-1", "99999"])
def test_a_number_as_text_is_out_of_range_like_a_number(tiny_model, text):
    with pytest.raises(
        ValueError, match=f"label must be a whole number between 0 and 2; got {text}"
    ):
        tiny_model.generate([text], QUICK)


@pytest.mark.parametrize("labels", [[], (), "sea", 3, None])
def test_labels_must_be_a_list(tiny_model, labels):
    with pytest.raises(ValueError, match="labels must be a list with at least one class"):
        tiny_model.generate_steps(labels, QUICK)


def test_ten_thousand_images_are_too_many(tiny_model):
    with pytest.raises(ValueError, match=f"between 1 and {MAX_IMAGES}; got 10000"):
        tiny_model.generate([0] * 10_000, QUICK)


@pytest.mark.parametrize("seed", [-1, True, 1.0, "3", None, 2**63, 2**64, float("nan")])
def test_a_bad_seed_is_named(tiny_model, seed):
    for call in (
        lambda: tiny_model.generate([0], QUICK, seed=seed),
        lambda: tiny_model.generate_steps([0], QUICK, seed=seed),
        lambda: tiny_model.inpaint(tiny.picture(0), tiny.left_half(), 0, QUICK, seed=seed),
    ):
        with pytest.raises(ValueError, match="seed must be a whole number between 0 and") as caught:
            call()
        assert repr(seed) in str(caught.value)


def test_seeds_reach_to_the_end_of_the_range(tiny_model):
    last = tiny_model.generate([0], QUICK, seed=MAX_SEED).tokens
    assert torch.equal(tiny_model.generate([1, 0], QUICK, seed=MAX_SEED - 1).tokens[1], last[0])
    with pytest.raises(ValueError, match="seed must be"):
        tiny_model.generate([0, 0], QUICK, seed=MAX_SEED)
    assert torch.equal(tiny_model.generate([0], QUICK, seed=np.int64(MAX_SEED)).tokens, last)


def test_encode_and_decode(tiny_model):
    images = tiny.images(20)
    tokens = tiny_model.encode(images)
    assert tokens.shape == (20, 4, 4) and tokens.dtype == torch.int64
    assert torch.equal(tokens[:3], tiny_model.encode(images[:3]))
    decoded = tiny_model.decode(tokens)
    assert decoded.shape == images.shape and decoded.dtype == torch.float32
    assert decoded.abs().max() <= 1
    assert tiny_model.encode(torch.zeros(1, 3, 8, 24)).shape == (1, 2, 6)
    assert tiny_model.decode(torch.zeros(1, 2, 6, dtype=torch.int64)).shape == (1, 3, 8, 24)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 16, 16), "float32 (B, 3, H, W)"),
        (torch.zeros(1, 1, 16, 16), "float32 (B, 3, H, W)"),
        (torch.zeros(1, 16, 16, 3), "float32 (B, 3, H, W)"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "got torch.uint8"),
        (torch.zeros(1, 3, 16, 18), "multiples of 4; got (1, 3, 16, 18)"),
        (torch.zeros(0, 3, 16, 16), "got (0, 3, 16, 16)"),
    ],
)
def test_bad_images_are_refused(tiny_model, images, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_model.encode(images)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(4, 4, dtype=torch.int64), "int64 (B, h, w)"),
        (torch.zeros(1, 4, 4), "got torch.float32"),
        (torch.zeros(0, 4, 4, dtype=torch.int64), "got torch.int64 (0, 4, 4)"),
        (torch.full((1, 4, 4), K), f"in 0..{K - 1}; got {K}..{K}"),
        (torch.full((1, 4, 4), -1), "got -1..-1"),
    ],
)
def test_bad_tokens_are_refused(tiny_model, tokens, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny_model.decode(tokens)


def test_partial_grids_can_be_shown(tiny_model):
    grids = torch.full((3, 4, 4), K)
    grids[1, 0, 0] = 5
    grids[2] = torch.arange(16).view(4, 4)
    shown = tiny_model.decode_partial(grids)
    assert shown.shape == (3, 3, 16, 16) and shown.abs().max() <= 1
    expected = torch.stack([torch.full((4, 4), 5), grids[2]])
    torch.testing.assert_close(shown[1:], tiny_model.decode(expected), atol=1e-5, rtol=0)


def test_each_code_has_a_patch(tiny_model):
    shown = tiny_model.codebook_patches()
    assert shown.shape == (K, 4, 4, 3) and shown.dtype == np.uint8
    assert len({patch.tobytes() for patch in shown}) > K // 2


def test_a_large_codebook_is_fitted_from_a_sample(tiny_model, monkeypatch):
    exact = tiny_model.codebook_patches()
    monkeypatch.setattr(codebook_patches, "PATCH_PIXELS", 16 * (K // 2))
    monkeypatch.setattr(codebook_patches, "FIT_BATCH", 5)
    fitted = codebook_patches.codebook_patches(tiny_model)
    assert (fitted[::2] == exact[::2]).all() and (fitted != exact).any()
    means, guess = exact.mean((1, 2)), fitted.mean((1, 2))
    assert np.abs(means - guess)[1::2].mean() < np.abs(means - means.mean(0))[1::2].mean()


def test_the_fit_finds_a_linear_decoder():
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(500, 4, generator=draw)
    weights = torch.randn(4, 3 * 2 * 2, generator=draw) * 0.05
    all_patches = (vectors @ weights + 0.1).view(-1, 3, 2, 2)
    sample = torch.arange(0, 500, 5)
    fitted = codebook_patches.fit_patches(vectors[sample], all_patches[sample])
    torch.testing.assert_close(fitted(vectors), all_patches, atol=0.05, rtol=0)


def test_grids_of_another_shape_are_refused(tiny_model):
    with pytest.raises(ValueError, match=re.escape("tokens must be (B, 4, 4); got (1, 3, 4)")):
        tiny_model.decode_tokens_steps(torch.full((1, 3, 4), K), [0], QUICK)
    with pytest.raises(ValueError, match="labels must be int64"):
        tiny_model.decode_tokens_steps(torch.full((2, 4, 4), K), [0], QUICK)


def test_a_list_gives_each_image_its_own_seed(tiny_model) -> None:
    config = SamplingConfig(num_steps=3)
    grids = torch.full((3, 4, 4), tiny_model.mask_token_id)
    *_, last = tiny_model.decode_tokens_steps(grids, ["sea", "été", 0], config, [7, 7, 2])
    for row, (label, seed) in enumerate((("sea", 7), ("été", 7), (0, 2))):
        alone = tiny_model.generate([label], config, seed)
        assert last.tokens[row].equal(alone.tokens[0])
    for seeds in ([1, 2], [1, 2, -1], [1, 2, 0.5]):
        with pytest.raises(ValueError, match="seed"):
            tiny_model.decode_tokens_steps(grids, ["sea"] * 3, config, seeds)


def test_an_image_that_is_no_longer_wanted_rests_and_the_others_stay_the_same(tiny_model) -> None:
    config = SamplingConfig(num_steps=4)
    gone = set()
    grids = torch.full((2, 4, 4), tiny_model.mask_token_id)
    steps = tiny_model.decode_tokens_steps(
        grids, ["sea", "sea"], config, 5, wanted=lambda image: image not in gone
    )
    next(steps)
    gone.add(0)
    *_, last = steps
    assert (last.tokens[0] == tiny_model.mask_token_id).any()
    assert last.tokens[1].equal(tiny_model.generate(["sea"], config, 6).tokens[0])
    steps = tiny_model.decode_tokens_steps(
        grids, ["sea", "sea"], config, 5, wanted=lambda image: image not in gone
    )
    next(steps)
    gone.add(1)
    assert list(steps) == []
