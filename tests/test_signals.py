"""Ctrl-C and SIGTERM at any moment of a command: a clean end, 130 or 143, nothing half written."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tiny
from commands import ROOT, from_nothing, run, steps, train_tokenizer, train_transformer
from maskgit_core.cli.main import Parser, run_command
from maskgit_core.cli.signals import Stopped
from maskgit_core.training import budget, loop
from maskgit_core.weights.checkpoint import load_checkpoint

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def command_of(work: object) -> Parser:
    parser = Parser(prog="python -m maskgit_core")
    parser.set_defaults(run=work)
    return parser


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_and_its_handlers_with_it(number, capsys):
    cleaned = []

    def work(args: argparse.Namespace) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            cleaned.append(True)

    before = {each: signal.getsignal(each) for each in SIGNALS}
    assert run_command(command_of(work), []) == SIGNALS[number]
    assert cleaned and {each: signal.getsignal(each) for each in SIGNALS} == before
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_stopped_looks_like_ctrl_c_to_code_that_knows_no_better():
    assert issubclass(Stopped, KeyboardInterrupt)
    assert Stopped(signal.SIGTERM).code == 143


class Strike:
    """Sends a signal when the n-th step of a run has been taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> None:
        self.count, real = 0, loop.update_ema_

        def update(*args: object) -> None:
            real(*args)
            self.count += 1
            if self.count == at:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(loop, "update_ema_", update)


@pytest.mark.parametrize(("at", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT), (3, 15)])
def test_a_signal_in_the_trial_of_train_is_no_part_of_the_trial(
    capsys, photo_folder, tmp_path, monkeypatch, at, number
):
    out = tmp_path / "out"
    command = [*from_nothing(photo_folder, out), "--minutes", 0.02]
    with monkeypatch.context() as patch:
        patch.setattr(budget, "TRIAL_SHARE", 1e6)  # all steps are part of it
        strike = Strike(patch, at, number)
        assert run(*command) == SIGNALS[signal.Signals(number)]
        assert strike.count == at + 1  # a run goes on for one step after a signal
    assert "stopped; the same command goes on" in capsys.readouterr().out
    assert torch.load(out / "tokenizer" / "state.pt", weights_only=True)["step"] == at + 1
    assert not tiny.leftovers(out)
    assert run(*command) == 0
    load_checkpoint(out / "checkpoint")


def test_a_signal_keeps_the_state_and_the_same_command_goes_on(
    capsys, photo_folder, tmp_path, tiny_checkpoint, monkeypatch
):
    for number, train, more in (
        (signal.SIGTERM, train_tokenizer, ()),
        (signal.SIGINT, train_transformer, (tiny_checkpoint,)),
    ):
        out = tmp_path / train.__name__
        with monkeypatch.context() as patch:
            Strike(patch, 2, number)
            assert train(photo_folder, out, *more) == SIGNALS[number]
        assert f"goes on at step 3; weights in {out / 'checkpoint'}" in capsys.readouterr().out
        load_checkpoint(out / "checkpoint")
        assert train(photo_folder, out, *more) == 0
        assert steps(out) == list(range(1, 7))


# Says when Python itself has started: what a signal does before is none of this program's doing.
PROGRAM = """
import runpy, sys
sys.argv[0] = "maskgit_core"
print("up", flush=True)
runpy.run_module("maskgit_core", run_name="__main__", alter_sys=True)
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


# While it loads, while it works, and when it is done, whatever the speed of this machine.
@pytest.mark.parametrize("wait", [0.4, 2.5])
@pytest.mark.parametrize("name", ["sample", "evaluate", "convert", "benchmark", "train"])
def test_a_signal_at_any_second_ends_any_command(
    photo_folder, tmp_path, tiny_checkpoint, name, wait
):
    parity = ROOT / "tests" / "fixtures" / "parity"
    out = tmp_path / "out"
    words = {
        "sample": ["--checkpoint", tiny_checkpoint, "--out", out / "a.png"],
        "evaluate": [
            *("--checkpoint", tiny_checkpoint, "--data", photo_folder, "--out", out),
            *("--cache-dir", tmp_path / "cache", "--num-samples", 64),
        ],
        "convert": [
            *("--tokenizer", parity / "halton" / "weights.pth", "--out", out),
            *("--transformer", parity / "halton" / "weights.pth"),
        ],
        "benchmark": ["--model", tiny_checkpoint, "--only", "load,decode,train"],
        "train": from_nothing(photo_folder, out)[1:],
    }[name]
    number = signal.SIGINT if (wait < 1) == (name in ("sample", "convert")) else signal.SIGTERM
    process = started(name, *words)
    try:
        time.sleep(wait)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    # 0 or 2: it had ended before.
    assert process.returncode in (SIGNALS[number], 0, 2), errors
    assert "Traceback" not in errors
    assert not tiny.leftovers(Path(tmp_path))
