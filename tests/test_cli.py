"""The command line: every command, bad input in one line, samples that repeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from commands import ROOT, assert_refused, run
from maskgit_core.cli.main import MOVED, main
from maskgit_core.config import SamplingConfig
from maskgit_core.weights.checkpoint import save_checkpoint

COMMANDS = (
    "sample",
    "inpaint",
    "outpaint",
    "train-tokenizer",
    "train-transformer",
    "evaluate",
    "convert",
    "benchmark",
    "info",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(capsys, command):
    assert run(command, "--help") == 0
    shown = capsys.readouterr()
    assert f"python -m maskgit_core {command}" in shown.out
    assert shown.err == ""


def test_help_names_every_command(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)


def test_help_explains_every_setting(capsys):
    for command in ("train-tokenizer", "train-transformer"):
        run(command, "--help")
        text = " ".join(capsys.readouterr().out.split())
        options = text[text.index("training:") :]
        assert "linear warm-up" in options and "(default: 0.998)" in options
        assert options.count("--") > 20
        assert options.count("(default:") >= options.count(" --") - 3  # --no-... share a line


def test_help_does_not_wait_for_torch():
    code = (
        "import sys, contextlib\n"
        "from maskgit_core.cli.main import main\n"
        "with contextlib.suppress(SystemExit): main(['sample', '--help'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "command"),
        (["paint"], "invalid choice: 'paint'"),
        (["sample", "--steps", "3"], "--steps"),
        (["sample", "--seed", "x"], "--seed: invalid int value: 'x'"),
        (["sample", "--order", "hilbert"], "invalid choice: 'hilbert'"),
        (["inpaint"], "--image, --mask"),
        (["train-tokenizer", "--data", "x"], "--out"),
        (["train-tokenizer", "--data", "x", "--out", "y", "--widths", "8", "b"], "invalid int"),
    ],
)
def test_slips_of_the_keyboard(capsys, arguments, says):
    assert_refused(capsys, *arguments, says=says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--labels", "rose"], "label must be one of forest, sea, été; got 'rose'"),
        (["--labels", "3"], "label must be a whole number between 0 and 2; got 3"),
        (["--labels", "-1"], "got -1"),
        (["--labels", "²"], "got '²'"),
        (["--seed", "-1"], "seed must be a whole number between 0"),
        (["--seed", str(2**63)], "seed must be a whole number between 0"),
        (["--num-steps", "0"], "num_steps must be a whole number at least 1"),
        (["--count", "0"], "count must be a whole number between 1"),
        (["--count", "10000"], "count must be a whole number between 1"),
        (["--count", "4000"], "number of images must be"),
        (["--columns", "0"], "columns must be"),
        (["--temperature", "nan"], "temperature must be a number between"),
        (["--top-p", "0"], "top_p must be above 0"),
    ],
)
def test_sample_refuses_bad_input(capsys, tiny_checkpoint, tmp_path, arguments, says):
    out = tmp_path / "sheet.png"
    assert_refused(
        capsys, "sample", "--checkpoint", tiny_checkpoint, "--out", out, *arguments, says=says
    )
    assert not out.exists()


@pytest.mark.parametrize("command", ["sample", "info"])
def test_a_checkpoint_that_is_not_there(capsys, tmp_path, command):
    assert_refused(capsys, command, "--checkpoint", tmp_path / "nowhere", says="nowhere")


def test_a_damaged_checkpoint(capsys, tmp_path):
    save_checkpoint(tmp_path, tokenizer=tiny.tokenizer(), classes=["a"])
    weights = tmp_path / "tokenizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    assert_refused(capsys, "info", "--checkpoint", tmp_path, says="damaged or cut short")


def test_sample_is_the_same_each_time(capsys, tiny_checkpoint, tmp_path, tiny_model):
    def sample(name: str, *more: object) -> bytes:
        options = ["--labels", "sea", "2", "none", "--num-steps", 3, "--seed", 5, *more]
        out = tmp_path / name
        assert run("sample", "--checkpoint", tiny_checkpoint, "--out", out, *options) == 0
        assert capsys.readouterr().out == f"{out}\n"
        return out.read_bytes()

    assert sample("a.png") == sample("b.png")
    assert sample("c.png", "--seed", "6") != sample("a.png")
    for changed in ("--order=raster", "--temperature=0", "--guidance-scale=9", "--top-k=1"):
        assert sample("d.png", changed) != sample("a.png")
    # The sheet shows what the model gives: three images of 16 pixels side by side.
    sheet = Image.open(tmp_path / "a.png")
    assert sheet.size == (3 * 18 - 2, 16)
    config = SamplingConfig(num_steps=3)
    images = tiny_model.generate(["sea", 2, None], config, seed=5).images
    wanted = ((images[1] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    shown = np.asarray(sheet)[:, 18:34].astype(float)
    assert np.abs(shown - wanted).max() <= 1


def test_sample_takes_all_classes_and_many_images(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("maskgit_core.cli.sample.SAMPLE_BATCH", 4)
    options = ["--checkpoint", tiny_checkpoint, "--num-steps", 2]
    assert run("sample", *options, "--count", 5, "--out", tmp_path / "all.png") == 0
    assert Image.open(tmp_path / "all.png").size == (5 * 18 - 2, 3 * 18 - 2)
    monkeypatch.setattr("maskgit_core.cli.sample.SAMPLE_BATCH", 64)
    assert run("sample", *options, "--count", 5, "--out", tmp_path / "once.png") == 0
    both = [np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("all.png", "once.png")]
    assert np.abs(both[0] - both[1]).max() <= 1


def test_a_class_whose_name_is_a_number(tmp_path):
    save_checkpoint(
        tmp_path,
        tokenizer=tiny.tokenizer(),
        transformer=tiny.transformer(),
        classes=["2", "none", "0"],
    )
    sheets = []
    for label in ("2", "0", "1", "none"):
        out = tmp_path / "sheet.png"
        options = ["--labels", label, "--num-steps", 2, "--out", out]
        assert run("sample", "--checkpoint", tmp_path, *options) == 0
        sheets.append(out.read_bytes())
    assert len(set(sheets[:3])) == 3
    assert sheets[2] == sheets[3]  # the class called none, which is number 1


def test_a_sheet_that_cannot_be_written(capsys, tiny_checkpoint, tmp_path):
    (tmp_path / "folder.png").mkdir()
    options = ["--checkpoint", tiny_checkpoint, "--num-steps", 1, "--out", tmp_path / "folder.png"]
    assert run("sample", *options) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "could not write folder.png" in last
    assert not tiny.leftovers(tmp_path)


def test_inpaint(capsys, tiny_checkpoint, tmp_path):
    photo = tiny.picture(1, (40, 30), "RGBA")
    photo.save(tmp_path / "photo.png")
    painted = np.zeros((30, 40), dtype=np.uint8)
    painted[10:20, 5:15] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    arguments = ["--checkpoint", tiny_checkpoint, "--image", tmp_path / "photo.png"]
    arguments += ["--mask", tmp_path / "mask.png", "--out", tmp_path / "result.png"]
    assert run("inpaint", *arguments, "--label", "été", "--num-steps", 2) == 0
    result = np.asarray(Image.open(tmp_path / "result.png"))
    before = np.asarray(photo)
    assert result.shape == before.shape
    assert np.array_equal(result[painted == 0], before[painted == 0])
    assert not np.array_equal(result[painted > 0], before[painted > 0])
    assert run("inpaint", *arguments, "--num-steps", 2) == 0

    assert_refused(capsys, "inpaint", *arguments, "--label", "rose", says="label must be one of")
    Image.new("L", (40, 30)).save(tmp_path / "mask.png")
    assert_refused(capsys, "inpaint", *arguments, says="something painted")
    Image.new("L", (30, 40), 255).save(tmp_path / "mask.png")
    assert_refused(capsys, "inpaint", *arguments, says="as large as the photo")
    (tmp_path / "photo.png").write_bytes(b"no image")
    assert_refused(capsys, "inpaint", *arguments, says="is no photo")
    (tmp_path / "photo.png").unlink()
    assert_refused(capsys, "inpaint", *arguments, says="photo.png cannot be opened")


def test_a_mask_may_be_drawn_on_transparency(tiny_checkpoint, tmp_path):
    photo = tiny.picture(3, (20, 16))
    photo.save(tmp_path / "photo.png")
    drawn = np.zeros((16, 20, 4), dtype=np.uint8)
    drawn[2:9, 2:9] = 255
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    arguments = ["--image", tmp_path / "photo.png", "--mask", tmp_path / "mask.png"]
    arguments += ["--checkpoint", tiny_checkpoint, "--out", tmp_path / "out.png"]
    assert run("inpaint", *arguments, "--num-steps", 2) == 0
    kept = drawn[..., 3] == 0
    result = np.asarray(Image.open(tmp_path / "out.png"))
    assert (result[kept] == np.asarray(photo)[kept]).all()
    assert (result[~kept] != np.asarray(photo)[~kept]).any()


def test_info(capsys, tiny_checkpoint, tmp_path):
    assert run("info", "--checkpoint", tiny_checkpoint, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["classes"] == tiny.CLASSES
    assert (facts["image_size"], facts["grid_size"], facts["codebook_size"]) == (16, 4, 32)
    assert facts["transformer_parameters"] == sum(
        p.numel() for p in tiny.transformer().parameters()
    )
    assert run("info", "--checkpoint", tiny_checkpoint) == 0
    assert "classes: forest, sea, été" in capsys.readouterr().out
    save_checkpoint(tmp_path, tokenizer=tiny.tokenizer(), classes=["a"])
    assert run("info", "--checkpoint", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["transformer_parameters"] == 0


@pytest.mark.parametrize("word", MOVED)
def test_a_command_that_moved_says_where_it_went(capsys, word) -> None:
    assert main([word, "--help"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert MOVED[word] in line


# ---- streams that are closed, full or not read ---------------------------------------------------


def ran(words: str, **streams: object) -> tuple[int, str]:
    """Exit code and error stream of a command in a process of its own, its output buffered."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "maskgit_core", *words.split()]
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, **streams}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environ, text=True, **options)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(("words", "code"), [("info", 141), ("--help", 141), ("paint", 2)])
def test_a_reader_that_has_gone(words, code):
    reading, writing = os.pipe()
    os.close(reading)
    found, said = ran(words, stdout=writing)
    os.close(writing)
    assert found == code
    assert "Traceback" not in said and "Exception ignored" not in said


def test_a_disk_that_is_full():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        for words in ("info", "--help"):
            code, said = ran(words, stdout=full)
            assert code == 2
            assert len(said.splitlines()) == 1 and "cannot be written" in said
        assert ran("info --checkpoint nowhere", stderr=full)[0] == 2
        assert ran("paint", stderr=full)[0] == 2


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tiny_checkpoint, tmp_path, closed):
    def shell(words: str) -> int:
        command = f"{sys.executable} -m maskgit_core {words} {closed}"
        options = {"cwd": ROOT, "stdout": subprocess.DEVNULL}
        return subprocess.run(["sh", "-c", command], check=False, **options).returncode

    out = tmp_path / "sheet.png"
    assert shell(f"sample --checkpoint {tiny_checkpoint} --num-steps 2 --out {out}") == 0
    assert Image.open(out).size[1] == 16
    assert shell(f"sample --checkpoint {tiny_checkpoint} --labels rose --out {out}") == 2
    assert shell("paint") == 2


@pytest.mark.parametrize("temperature", ["1e-46", "1e-300", "5e-324"])
def test_a_tiny_temperature(tiny_checkpoint, tmp_path, temperature):
    out = tmp_path / "sheet.png"
    options = ["--checkpoint", tiny_checkpoint, "--num-steps", 2, "--out", out]
    assert run("sample", *options, "--temperature", temperature) == 0


def test_numbers_of_classes_are_those_of_the_names(tiny_checkpoint, tmp_path):
    sheets = []
    for labels in (["sea", "été"], ["1", "2"], ["SEA", "ÉTÉ"]):
        out = tmp_path / "sheet.png"
        options = ["--checkpoint", tiny_checkpoint, "--num-steps", 2, "--out", out]
        assert run("sample", *options, "--labels", *labels) == 0
        sheets.append(out.read_bytes())
    assert len(set(sheets)) == 1
