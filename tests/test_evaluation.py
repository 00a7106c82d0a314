"""Evaluation end to end with models whose scores are known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from evaluation_models import CornerFeatures, Memoriser, run, write_data
from maskgit_core.config import SamplingConfig
from maskgit_core.data.image_files import recipe_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


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
        with Image.open(tmp_path / "out" / name) as sheet:
            sheet.load()
            assert recipe_of(sheet)["num_steps"] == SamplingConfig().num_steps


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
    other = run(Memoriser(data), data / "val", tmp_path, train=data)
    assert other["settings"]["reference"] == "train" and other["counts"]["train"] == 23


def test_small_sets_are_noted(data: Path, tmp_path: Path) -> None:
    notes = run(Memoriser(data), data, tmp_path)["notes"]
    assert any("11 val photos" in note and "23" not in note for note in notes)


def test_an_unreadable_photo_is_skipped_and_counted(data: Path, tmp_path: Path) -> None:
    (data / "train/rose/00.png").write_bytes(b"no image")
    result = run(Memoriser(data), data, tmp_path)
    assert result["counts"]["skipped"] == 1 and result["counts"]["train"] == 22
    assert result["nearest"][0]["photo"] == "rose/01.png"


def test_folders_that_differ_in_case_only_are_two_classes(data: Path, tmp_path: Path) -> None:
    model = Memoriser(data)
    for part in ("train", "val"):
        (data / part / "sea").rename(data / part / "Rose")
    model.classes = ["forest", "Rose", "rose"]
    model.labels = 3 - model.labels  # what was sea is Rose now
    result = run(model, data, tmp_path)
    assert set(result["recognised_by_class"]["samples"]) == {"Rose", "rose"}
    assert result["recognised_samples"] == 1
    model.classes = ["forest", "sea", "rose"]
    with pytest.raises(ValueError, match="does not know: Rose"):
        run(model, data, tmp_path)


@pytest.mark.parametrize("name", ["all", "mean", "overall", "samples", "val"])
def test_a_class_of_any_name_leaves_the_mean_alone(data: Path, tmp_path: Path, name: str) -> None:
    class Half(Memoriser):
        def generate(self, labels: list[int], config: SamplingConfig, seed: int) -> Any:
            return super().generate([2] * len(labels), config, seed)

    model = Half(data)
    for part in ("train", "val"):
        (data / part / "sea").rename(data / part / name)
    model.classes = ["forest", "rose", name]
    result = run(model, data, tmp_path)
    assert result["recognised_by_class"]["samples"] == {"rose": 0.0, name: 1.0}
    assert result["recognised_samples"] == 0.5


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_samples_are_kept_by_precision_and_by_batch_where_it_changes_them(
    data: Path, tmp_path: Path, precision: str
) -> None:
    def calls(precision: str, batch_size: int) -> int:
        model = Memoriser(data)
        model.precision = precision
        run(model, data, tmp_path, batch_size=batch_size)
        return len(model.calls)

    assert calls(precision, 9) == 2
    assert calls(precision, 9) == 0
    assert (calls(precision, 6) == 0) == (precision == "float32")
    others = {"float32", "bfloat16", "int8"} - {precision}
    assert all(calls(other, 9) == 2 for other in others)


def test_another_network_of_the_same_weights_is_sampled_anew(data: Path, tmp_path: Path) -> None:
    run(Memoriser(data), data, tmp_path)
    model = Memoriser(data)
    model.transformer.config = SimpleNamespace(num_heads=3)
    run(model, data, tmp_path)
    assert len(model.calls) == 1


@pytest.mark.parametrize("damage", [b"", b"no table", None])
def test_damaged_tables_are_made_again_with_a_sentence(
    data: Path, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = run(Memoriser(data), data, tmp_path)
    tables = sorted((tmp_path / "tables").rglob("*.npy"))
    assert len(tables) > 5
    for path in tables:
        path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    caplog.clear()
    assert run(Memoriser(data), data, tmp_path) == wanted
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if text.startswith("computing ")]) >= len(tables) - 2
    caplog.clear()
    model = Memoriser(data)
    assert run(model, data, tmp_path) == wanted
    assert not model.calls and not caplog.records


def test_held_out_photos_in_another_place(data: Path, tmp_path: Path) -> None:
    wanted = run(Memoriser(data), data, tmp_path / "first")
    model = Memoriser(data)
    (data / "val").rename(tmp_path / "held-out")
    found = run(model, data, tmp_path / "second", val=tmp_path / "held-out")
    assert found == wanted
