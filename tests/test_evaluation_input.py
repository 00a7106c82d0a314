"""What an evaluation is given: folders, settings, options of its command; mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation_models import (
    SIZE,
    CornerFeatures,
    Memoriser,
    mean_difference,
    run,
    write_data,
)
from maskgit_core.cli import main
from maskgit_core.config import TokenizerConfig, TransformerConfig
from maskgit_core.evaluation.features import FEATURE_NETWORKS
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.transformer import MaskedTransformer
from maskgit_core.weights.checkpoint import save_checkpoint


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


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
        ({"features": "vgg"}, "features must be one of lite0, lite2, inception; got 'vgg'"),
    ],
)
def test_bad_settings_are_named(
    data: Path, tmp_path: Path, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(Memoriser(data), data, tmp_path / "out", **setting)
    assert not (tmp_path / "out").exists()


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
    monkeypatch.setattr("maskgit_core.evaluation.evaluate.PerceptualLoss", lambda: mean_difference)


def command(checkpoint: Path, data: Path, tmp_path: Path, *more: str) -> int:
    paths = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    return main.main(
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
    assert "device must be one of auto, cpu, cuda; got 'cube'" in capsys.readouterr().err


@pytest.mark.usefixtures("cheap_networks")
@pytest.mark.parametrize("name", ["validation", "valid", "test", "elsewhere"])
def test_the_command_finds_held_out_photos_as_training_does(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (data / "val").rename(data / name)
    (data / name / "sea").rename(data / name / "SEA")
    val = ["--val", str(data / name)] if name == "elsewhere" else []
    assert command(checkpoint, data, tmp_path, "--num-samples", "0", *val) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert (counts["train"], counts["val"]) == (23, 11)
