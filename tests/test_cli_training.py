"""The training commands: from photos to samples, bad input, runs that are stopped and go on."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from commands import (
    ROOT,
    SHORT,
    assert_refused,
    logged,
    run,
    steps,
    train_tokenizer,
    train_transformer,
)
from maskgit_core.cli.data import load_photos
from maskgit_core.data.photos import scan_folder
from maskgit_core.weights.checkpoint import load_checkpoint, save_checkpoint


def test_from_photos_to_samples(capsys, photo_folder, tmp_path):
    assert train_tokenizer(photo_folder, tmp_path / "one") == 0
    printed = capsys.readouterr().out
    assert "finished at step 6" in printed
    shares = [line["data_share"] for line in logged(tmp_path / "one")]
    assert len(shares) == 6 and all(0 < share < 1 for share in shares)
    assert f"making batches took {100 * sum(shares) / 6:.1f} % of the time" in printed
    tokenizer = tmp_path / "one" / "checkpoint"
    assert train_transformer(photo_folder, tmp_path / "two", tokenizer, "--crops", 2) == 0
    assert "finished at step 6" in capsys.readouterr().out
    assert steps(tmp_path / "one") == steps(tmp_path / "two") == list(range(1, 7))
    assert len(list((tmp_path / "two").glob("sheet-*.png"))) == 2
    checkpoint = tmp_path / "two" / "checkpoint"
    assert load_checkpoint(checkpoint).classes == sorted(tiny.CLASSES)
    options = ["--labels", "sea", "--num-steps", 2, "--out", tmp_path / "sea.png"]
    assert run("sample", "--checkpoint", checkpoint, *options) == 0
    # Each can be trained on from where it ended, by another run.
    assert train_tokenizer(photo_folder, tmp_path / "three", "--init", tokenizer) == 0
    more = ["--init", checkpoint]
    assert train_transformer(photo_folder, tmp_path / "four", tokenizer, *more) == 0


def test_a_decoder_learns_from_sampled_tokens_too(capsys, photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("maskgit_core.cli.train_tokenizer.SAMPLED_POOL", 40)
    save_checkpoint(
        tmp_path / "whole",
        tokenizer=tiny.tokenizer(),
        transformer=tiny.transformer(),
        classes=tiny.CLASSES,
    )
    options = ["--init", tmp_path / "whole", "--freeze-codes", "--adversarial-weight", 0.4]
    options += ["--sampled-images", 3]
    assert train_tokenizer(photo_folder, tmp_path / "out", *options) == 0
    kept = load_file(tmp_path / "out" / "sampled.safetensors")["tokens"]
    assert kept.shape == (40, 4, 4) and kept.max() < 32
    before, after = tiny.tokenizer(), load_checkpoint(tmp_path / "out" / "checkpoint").tokenizer
    assert torch.equal(before.quantizer.codebook, after.quantizer.codebook)
    assert not torch.equal(before.decoder.head.weight, after.decoder.head.weight)
    other = tmp_path / "other"
    save_checkpoint(
        other, tokenizer=tiny.tokenizer(1), transformer=tiny.transformer(), classes=tiny.CLASSES
    )
    # Of another model, or damaged: sampled again.
    (tmp_path / "again").mkdir()
    stale = tmp_path / "again" / "sampled.safetensors"
    save_file({"tokens": torch.zeros(40, 4, 4, dtype=torch.int32)}, stale)
    for content in (stale.read_bytes(), b"no tensors", b""):
        shutil.rmtree(tmp_path / "again")
        (tmp_path / "again").mkdir()
        stale.write_bytes(content)
        assert train_tokenizer(photo_folder, tmp_path / "again", *options) == 0
        assert torch.equal(load_file(stale)["tokens"], kept)
    # The same model: read, not sampled.
    before = stale.stat().st_mtime_ns
    assert train_tokenizer(photo_folder, tmp_path / "again", *options) == 0
    assert stale.stat().st_mtime_ns == before
    options += ["--sampled", other]
    assert train_tokenizer(photo_folder, tmp_path / "no", *options) == 2
    assert "other was trained with other codes" in capsys.readouterr().err


def test_train_and_val_folders(tmp_path):
    tiny.write_photos(tmp_path / "data" / "train", ["land", "sea"], count=3)
    tiny.write_photos(tmp_path / "data" / "val", ["land", "sea"], count=1)
    assert train_tokenizer(tmp_path / "data", tmp_path / "out") == 0
    assert load_checkpoint(tmp_path / "out" / "checkpoint").classes == ["land", "sea"]
    sizes = [np.load(path, mmap_mode="r").shape[0] for path in (tmp_path / "out").glob("*.npy")]
    assert sorted(sizes) == [2, 6]


@pytest.mark.parametrize("name", ["validation", "valid", "test"])
def test_held_out_photos_by_any_usual_name(tmp_path, name):
    tiny.write_photos(tmp_path / "data" / "train", ["land", "sea"], count=3)
    tiny.write_photos(tmp_path / "data" / name, ["SEA"], count=1)
    assert train_tokenizer(tmp_path / "data", tmp_path / "out") == 0
    sizes = [np.load(path, mmap_mode="r").shape[0] for path in (tmp_path / "out").glob("*.npy")]
    assert sorted(sizes) == [1, 6]


def test_held_out_photos_have_the_labels_of_training(tmp_path):
    nfd = unicodedata.normalize("NFD", "été")
    tiny.write_photos(tmp_path / "data", ["A", "a", "Land", "été"], count=2)
    tiny.write_photos(tmp_path / "val", [nfd, "LAND", "a"], count=1)
    args = {"data": tmp_path / "data", "val": tmp_path / "val", "cache": None}
    where = argparse.Namespace(**args, out=tmp_path / "out")
    photos, val = load_photos(where, 16)
    assert photos.classes == val.classes == ["A", "Land", "a", "été"]
    by_name = {"LAND": 1, "a": 2, "été": 3}
    assert val.labels.tolist() == [by_name[name] for name in scan_folder(tmp_path / "val").classes]


def test_a_class_called_train(tmp_path):
    tiny.write_photos(tmp_path / "data", ["car", "train"], count=2)
    assert train_tokenizer(tmp_path / "data", tmp_path / "out") == 0
    assert load_checkpoint(tmp_path / "out" / "checkpoint").classes == ["car", "train"]


def test_one_class_of_two_photos(tmp_path):
    tiny.write_photos(tmp_path / "data", ["море"], count=2)
    assert train_tokenizer(tmp_path / "data", tmp_path / "one") == 0
    tokenizer = tmp_path / "one" / "checkpoint"
    assert train_transformer(tmp_path / "data", tmp_path / "two", tokenizer) == 0
    assert load_checkpoint(tmp_path / "two" / "checkpoint").classes == ["море"]


def test_an_unreadable_photo_is_named_and_training_goes_on(photo_folder, tmp_path, caplog):
    (photo_folder / "sea" / "1.png").write_bytes(b"no image")
    assert train_tokenizer(photo_folder, tmp_path / "out") == 0
    named = [r.getMessage() for r in caplog.records if str(Path("sea/1.png")) in r.getMessage()]
    assert len(named) == 1
    assert steps(tmp_path / "out")[-1] == 6


def test_training_refuses_bad_input(capsys, photo_folder, tmp_path, tiny_checkpoint):
    out = tmp_path / "out"

    def refused(data: Path, *more: object, says: str) -> None:
        options = [*SHORT, *tiny.TOKENIZER_OPTIONS, *more]
        command = ["train-tokenizer", "--data", data, "--out", out, *options]
        assert_refused(capsys, *command, says=says)

    refused(tmp_path / "nowhere", says="nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", says="one folder per class with images inside; found none")
    (tmp_path / "loose").mkdir()
    tiny.picture(0).save(tmp_path / "loose" / "a.png")
    refused(tmp_path / "loose", says="one folder per class with images inside; found none")
    refused(photo_folder, "--image-size", 18, says="image_size must be a multiple of 4; got 18")
    refused(photo_folder, "--widths", 8, says="encoder_blocks must have one entry")
    refused(photo_folder, "--batch-size", 0, says="batch_size must be")
    refused(photo_folder, "--seed", -3, says="seed must be")
    refused(photo_folder, "--learning-rate", "inf", says="learning_rate must be")
    refused(photo_folder, "--max-minutes", -1, says="max_minutes must be")
    refused(photo_folder, "--freeze-codes", says="freeze_codes needs init")
    refused(photo_folder, "--init", tmp_path / "none", says="there is no checkpoint folder")
    tiny.write_photos(tmp_path / "val", ["forest", "lake"], count=1)
    refused(
        photo_folder,
        "--val",
        tmp_path / "val",
        says="val holds classes that the training data does not know: lake",
    )
    assert not out.exists()


def test_the_second_stage_refuses_what_does_not_fit(
    capsys, photo_folder, tmp_path, tiny_checkpoint
):
    def refused(*more: object, tokenizer: Path = tiny_checkpoint, says: str) -> None:
        command = ["train-transformer", "--data", photo_folder, "--out", tmp_path / "out"]
        command += ["--tokenizer", tokenizer, *SHORT]
        assert_refused(capsys, *command, *tiny.TRANSFORMER_OPTIONS, *more, says=says)

    refused(tokenizer=tmp_path / "none", says="there is no checkpoint folder")
    refused("--crops", 6, says="crops must be a whole number between 1 and 5")
    refused("--kind", "unet", says="kind must be one of class_token, adaln")
    save_checkpoint(tmp_path / "alone", tokenizer=tiny.tokenizer(), classes=["a"])
    refused("--init", tmp_path / "alone", says="holds a tokenizer only")
    save_checkpoint(
        tmp_path / "merging",
        tokenizer=tiny.tokenizer(),
        transformer=tiny.transformer(kind="adaln", merge=2),
        classes=tiny.CLASSES,
    )
    refused(
        *("--init", tmp_path / "merging", "--image-size", 20),
        says="2 x 2 tokens as one, which must divide the grid; got a grid of 5 x 5",
    )
    save_checkpoint(
        tmp_path / "other",
        tokenizer=tiny.tokenizer(1),
        transformer=tiny.transformer(num_classes=2),
        classes=["a", "b"],
    )
    refused("--init", tmp_path / "other", says="other was trained with other codes")
    refused("--image-size", 18, says="image_size must be a multiple of 4, the side of a token")
    assert not (tmp_path / "out").exists()


def test_a_trained_model_goes_on_at_another_size_and_with_other_classes(
    capsys, tmp_path, tiny_checkpoint
):
    photos = tiny.write_photos(tmp_path / "photos", ["cat", "SEA"])
    options = ["--init", tiny_checkpoint, "--freeze-codes"]
    assert train_tokenizer(photos, tmp_path / "one", *options, "--image-size", 24) == 0
    assert "16 x 16 pixels reads 24 x 24 pixels, 6 x 6 tokens" in capsys.readouterr().out
    tokenizer = tmp_path / "one" / "checkpoint"
    assert load_checkpoint(tokenizer).tokenizer.config.image_size == 24
    # Its decoder has learned, its codes have not: the transformer goes on with them.
    options = ["--init", tiny_checkpoint]
    assert train_transformer(photos, tmp_path / "two", tokenizer, *options) == 0
    printed = capsys.readouterr().out
    assert "positions was interpolated from 4 x 4 to 6 x 6 tokens" in printed
    assert "Classes kept with their rows: SEA." in printed
    assert "Classes added: cat; " in printed
    assert "left out, the data does not show them: forest, été." in printed
    assert "The network is that of --init: depth is 2, not 1." in printed
    found = load_checkpoint(tmp_path / "two" / "checkpoint")
    assert found.classes == ["SEA", "cat"]
    assert found.transformer.config.grid_size == found.tokenizer.config.grid_size == 6
    # A tokenizer whose codes have moved keeps their meaning for a while.
    moving = ["--init", tiny_checkpoint, "--continuous-steps", 0, "--revive-every", 0]
    moving += ["--matrix-learning-rate", 0, "--learning-rate", 3e-3]
    assert train_tokenizer(photos, tmp_path / "moved", *moving) == 0
    moved = tmp_path / "moved" / "checkpoint"
    assert train_transformer(photos, tmp_path / "after", moved, *options) == 0
    assert "have moved a little since; its transformer adapts" in capsys.readouterr().out
    # From the first tokenizer the same, by an option of its own.
    options += ["--image-size", 24]
    assert train_transformer(photos, tmp_path / "three", tiny_checkpoint, *options) == 0
    assert load_checkpoint(tmp_path / "three" / "checkpoint").tokenizer.config.image_size == 24
    # And with a preset, which names a size.
    preset = ["--preset", "scenes-flowers-xs", "--set", "tokenizer_training.perceptual_weight=0"]
    options = ["--init", tiny_checkpoint, "--max-minutes", 0, "--batch-size", 2, *preset]
    assert run("train-tokenizer", "--data", photos, "--out", tmp_path / "four", *options) == 0
    assert "reads 96 x 96 pixels, 24 x 24 tokens" in capsys.readouterr().out


def test_sampled_grids_must_have_the_size_of_the_photos(
    capsys, photo_folder, tmp_path, tiny_checkpoint
):
    options = ["--init", tiny_checkpoint, "--freeze-codes", "--adversarial-weight", 0.4]
    options += ["--sampled-images", 3, "--image-size", 24]
    command = [*SHORT, *tiny.TOKENIZER_OPTIONS, *options]
    command = ["train-tokenizer", "--data", photo_folder, "--out", tmp_path / "out", *command]
    assert run(*command) == 2
    assert "sampled must have the grid of init, 6 tokens a side" in capsys.readouterr().err


def test_a_changed_setting_is_told_when_a_run_goes_on(capsys, photo_folder, tmp_path):
    assert train_tokenizer(photo_folder, tmp_path, "--max-minutes", 0) == 0
    assert "stopped; the same command goes on at step 1" in capsys.readouterr().out
    command = ["train-tokenizer", "--data", photo_folder, "--out", tmp_path, *SHORT]
    command += ["--continuous-steps", 2, *tiny.TOKENIZER_OPTIONS]
    assert_refused(capsys, *command, "--learning-rate", 0.5, says="learning_rate was 0.002, is 0.5")
    assert_refused(capsys, *command, "--codebook-size", 16, says="codebook_size was 32, is 16")
    assert run(*command) == 0
    assert steps(tmp_path) == list(range(1, 7))
    assert run(*command, "--max-steps", 8) == 0
    assert steps(tmp_path) == list(range(1, 9))
    capsys.readouterr()
    assert run(*command) == 0  # fewer steps than are done: nothing to do
    assert "finished at step 8" in capsys.readouterr().out


def test_a_run_goes_on_with_what_it_was_made_from_only(
    capsys, photo_folder, tmp_path, tiny_checkpoint
):
    """By content: another file in the old place is told, the same one elsewhere is taken."""
    tokenizer, out = tmp_path / "tokenizer", tmp_path / "out"
    shutil.copytree(tiny_checkpoint, tokenizer)
    stop = ("--max-minutes", 0)
    assert train_transformer(photo_folder, out, tokenizer, *stop) == 0
    command = ["train-transformer", "--out", out, *SHORT, *tiny.TRANSFORMER_OPTIONS]

    def refused(*more: object, says: str, data: Path = photo_folder) -> None:
        capsys.readouterr()
        assert run(*command, "--data", data, *more) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]

    save_checkpoint(tokenizer, tokenizer=tiny.tokenizer(1), classes=["a"])
    refused("--tokenizer", tokenizer, says="fingerprint of the tokenizer was")
    same = ("--tokenizer", tiny_checkpoint)
    renamed = tmp_path / "renamed"
    shutil.copytree(photo_folder, renamed)
    (renamed / "sea").rename(renamed / "lake")
    refused(*same, data=renamed, says="classes was")
    changed = tmp_path / "changed"
    shutil.copytree(photo_folder, changed)
    tiny.picture(999, (30, 30)).save(changed / "sea" / "0.png")
    refused(*same, data=changed, says="fingerprint of the tokens was")
    refused(*same, "--crops", 2, says="fingerprint of the tokens was")
    refused(*same, "--init", tiny_checkpoint, says="fingerprint of init was none")
    assert train_transformer(photo_folder, out, tiny_checkpoint) == 0
    assert steps(out) == list(range(1, 7))
    # The first stage alike.
    out = tmp_path / "first"
    assert train_tokenizer(photo_folder, out, *stop) == 0
    command = ["train-tokenizer", "--out", out, *SHORT, *tiny.TOKENIZER_OPTIONS]
    command += ["--continuous-steps", 2]
    refused(data=renamed, says="classes was")
    refused(data=changed, says="fingerprint of the photos was")
    refused("--init", tiny_checkpoint, says="fingerprint of init was none")
    assert train_tokenizer(photo_folder, out) == 0


def start_training(data: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "maskgit_core", "train-tokenizer", "--data", str(data)]
    command += ["--out", str(out), "--max-steps", "1000000", "--log-every", "1"]
    command += [*tiny.TOKENIZER_OPTIONS, "--batch-size", "2", "--save-every", "100000"]
    command += ["--sample-every", "100000", "--continuous-steps", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(photo_folder, tmp_path, number):
    out, done = tmp_path / "out", 0
    for _ in range(2):
        process = start_training(photo_folder, out)
        try:
            deadline = time.monotonic() + 120
            while not (out / "metrics.jsonl").is_file() or len(steps(out)) < done + 5:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(number)
            printed, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 128 + number, errors
        assert "Traceback" not in errors
        assert "stopped; the same command goes on" in printed
        last = torch.load(out / "state.pt", weights_only=True)["step"]
        assert steps(out) == list(range(1, last + 1))
        assert f"at step {last}" in printed
        assert last >= done + 5
        assert not tiny.leftovers(out)
        load_checkpoint(out / "checkpoint")
        done = last


def test_the_grid_of_the_tokenizer_counts(capsys, photo_folder, tmp_path):
    """Settings are checked against the tokenizer's grid, not against that of the defaults."""
    wide = tiny.tokenizer(image_size=32)
    save_checkpoint(tmp_path / "tokenizer", tokenizer=wide, classes=["a"])
    more = ["--kind", "adaln", "--merge", 8, "--max-minutes", 0]
    assert train_transformer(photo_folder, tmp_path / "out", tmp_path / "tokenizer", *more) == 0
    loaded = load_checkpoint(tmp_path / "out" / "checkpoint").transformer
    assert (loaded.config.grid_size, loaded.config.merge) == (8, 8)
