"""Tokens are extracted once, in shards, and go on where an extraction was interrupted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from maskgit_core.data import shards
from maskgit_core.data.photos import Photos
from maskgit_core.data.shards import ShardedTokens, TokenData, crop_corners, extract_tokens
from maskgit_core.training.loop import train
from maskgit_core.training.transformer_stage import TransformerStage
from runs import lines


@pytest.mark.parametrize("slack", [0, 1, 4])
def test_crops_stay_inside(slack):
    corners = crop_corners(slack)
    assert corners[0] == (slack // 2, slack // 2)
    assert all(0 <= top <= slack and 0 <= left <= slack for top, left in corners)
    assert len(corners) == (1 if slack == 0 else 5)


def test_tokens_are_those_of_crops_and_mirror_images():
    tokenizer, photos = tiny.tokenizer(), tiny.photos(5)
    data = extract_tokens(tokenizer, photos, crops=2)
    assert data.tokens.shape == (5, 4, 16) and data.tokens.dtype == torch.int16
    assert torch.equal(data.labels, photos.labels) and data.classes == photos.classes
    pixels = torch.from_numpy(photos.pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    for view, (top, left) in enumerate(crop_corners(1)[:2]):
        crop = pixels[:, :, top : top + 16, left : left + 16]
        for flip, images in enumerate((crop, crop.flip(-1))):
            wanted = tokenizer.encode_to_tokens(images).flatten(1)
            assert (data.tokens[:, 2 * view + flip] == wanted).float().mean() > 0.99


def test_tokens_are_extracted_once(tmp_path):
    tokenizer, photos, batches = tiny.tokenizer(), tiny.photos(5), []

    def extract(tokenizer, photos, crops=1) -> TokenData:
        def progress(parts):
            batches.extend(parts)
            return parts

        cache = tmp_path / "tokens.safetensors"
        return extract_tokens(tokenizer, photos, crops=crops, cache=cache, progress=progress)

    first = extract(tokenizer, photos)
    assert len(batches) == 1
    assert torch.equal(extract(tokenizer, photos).tokens, first.tokens)
    assert len(batches) == 1
    # Another tokenizer, other crops, and one pixel of one photo: each is noticed.
    extract(tiny.tokenizer(1), photos)
    assert len(batches) == 2
    extract(tokenizer, photos, crops=2)
    assert len(batches) == 3
    pixels = photos.pixels.copy()
    pixels[3, 0, 0, 0] ^= 1
    extract(tokenizer, Photos(pixels, photos.labels, photos.classes, []), crops=2)
    assert len(batches) == 4


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_token_cache_is_made_again_with_a_sentence(tmp_path, share, caplog):
    cache = tmp_path / "tokens.safetensors"
    first = extract_tokens(tiny.tokenizer(), tiny.photos(5), cache=cache)
    whole = cache.read_bytes()
    cache.unlink()  # not written over: the first tokens are still mapped
    cache.write_bytes(whole[: int(share * len(whole))])
    again = extract_tokens(tiny.tokenizer(), tiny.photos(5), cache=cache)
    assert torch.equal(again.tokens, first.tokens)
    assert cache.read_bytes() == whole
    (record,) = caplog.records
    assert record.getMessage().startswith("encoding photos again, tokens.safetensors is damaged")


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_PHOTOS", 4)
    monkeypatch.setattr(shards, "ENCODE_BATCH", 3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_shards_are_indexed_as_one(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    shards = [torch.randint(0, 99, (size, 2, 3), generator=generator) for size in sizes]
    whole, sharded = torch.cat(shards), ShardedTokens(shards)
    rows = torch.randint(0, len(whole), (7,), generator=generator)
    views = torch.randint(0, 2, (7,), generator=generator)
    assert sharded.shape == whole.shape and len(sharded) == len(whole)
    assert torch.equal(sharded[rows, views], whole[rows, views])
    assert torch.equal(sharded[:, 0], whole[:, 0])


def test_training_from_shards_is_training_from_one_file(small_shards, tmp_path):
    tokenizer, photos, config = (
        tiny.tokenizer(),
        tiny.photos(10),
        replace(tiny.SECOND, max_steps=4),
    )
    for name, cache in (("one", None), ("many", tmp_path / "tokens.safetensors")):
        data = extract_tokens(tokenizer, photos, crops=2, cache=cache)
        stage = TransformerStage(tiny.transformer().train(), tokenizer, data, data, config)
        train(stage, config, tmp_path / name)
    assert len(list(tmp_path.glob("tokens-*-of-00003.safetensors"))) == 3
    assert lines(tmp_path / "one") == lines(tmp_path / "many")


def test_an_interrupted_extraction_goes_on(small_shards, tmp_path):
    tokenizer, photos, cache = tiny.tokenizer(), tiny.photos(10), tmp_path / "tokens.safetensors"
    whole = extract_tokens(tokenizer, photos)

    def interrupted(batches):
        yield from batches[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_tokens(tokenizer, photos, cache=cache, progress=interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens-00000-of-00003.safetensors"]
    rest = []
    data = extract_tokens(
        tokenizer, photos, cache=cache, progress=lambda batches: rest.extend(batches) or batches
    )
    assert torch.cat(rest).tolist() == list(range(4, 10))
    assert torch.equal(data.tokens[:, 1], whole.tokens[:, 1])
    # A photo that changes costs its own shard only.
    pixels = photos.pixels.copy()
    pixels[5, 0, 0, 0] ^= 1
    rest.clear()
    changed = Photos(pixels, photos.labels, photos.classes, [])
    extract_tokens(
        tokenizer, changed, cache=cache, progress=lambda batches: rest.extend(batches) or batches
    )
    assert torch.cat(rest).tolist() == list(range(4, 8))
