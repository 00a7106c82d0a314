"""Calls of the command line, and what a refusal must look like."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

import tiny
from demo.tools import deploy_space
from maskgit_core.cli.main import main, run_command

ROOT = Path(__file__).parent.parent
SHORT = "--max-steps 6 --batch-size 4 --sample-every 3 --save-every 3 --log-every 1".split()


TOOLS = {"deploy-space": deploy_space}


def run(*arguments: object) -> int:
    """Exit code of a command of `maskgit_core`, or of one of `demo.tools` by its old word."""
    words = [str(argument) for argument in arguments]
    try:
        if words and words[0] in TOOLS:
            return run_command(TOOLS[words[0]].build_parser(), words[1:])
        return main(words)
    except SystemExit as stop:
        return int(stop.code or 0)


def assert_refused(capsys: pytest.CaptureFixture[str], *arguments: object, says: str) -> None:
    capsys.readouterr()
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith(("python -m maskgit_core", "python -m demo.tools"))
    assert says in lines[0]
    assert captured.out == ""


def train_tokenizer(data: Path, out: Path, *more: object) -> int:
    options = [*SHORT, "--continuous-steps", 2, *tiny.TOKENIZER_OPTIONS, *more]
    return run("train-tokenizer", "--data", data, "--out", out, *options)


def train_transformer(data: Path, out: Path, tokenizer: Path, *more: object) -> int:
    options = ["--tokenizer", tokenizer, *SHORT, *tiny.TRANSFORMER_OPTIONS, *more]
    return run("train-transformer", "--data", data, "--out", out, *options)


# Networks that the command train makes from nothing.
SMALL = [
    *("tokenizer.image_size=16", "widths=[8, 16]", "encoder_blocks=[1, 1]"),
    *("decoder_blocks=[1, 1]", "tokenizer.codebook_size=32", "codebook_dim=4"),
    *("transformer.width=16", "depth=1", "num_heads=2", "mlp_width=32"),
    *("perceptual_weight=0", "continuous_steps=2", "sampling.num_steps=2"),
    *("tokenizer_training.batch_size=4", "transformer_training.batch_size=4"),
    *("tokenizer_training.max_steps=4", "transformer_training.max_steps=4"),
]


def sets(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def from_nothing(data: Path, out: Path, *more: object) -> list[object]:
    command = ["train", "--data", data, "--out", out, "--init", "none", "--minutes", 0]
    return [*command, "--samples", 0, *sets(*SMALL), *more]


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def steps(out: Path) -> list[int]:
    return [line["step"] for line in logged(out)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]
