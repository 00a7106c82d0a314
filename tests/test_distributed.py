"""Two processes compute what one does, and the end of one does no harm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ranks
import tiny
from commands import ROOT, SHORT, from_nothing, run, steps
from maskgit_core.data.shards import extract_tokens
from maskgit_core.files import CheckpointError
from maskgit_core.training.loop import train
from maskgit_core.weights.checkpoint import load_checkpoint
from runs import METRICS, STATE, WEIGHTS, lines, tokenizer_stage, transformer_stage

TIMEOUT = 300
KINDS = ("class_token", "adaln")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[subprocess.Popen[str]], list[str]]:
    """The folder, the processes and the output of two ranks that have run ranks.py."""
    folder = tmp_path_factory.mktemp("ranks")
    begun = replace(ranks.TRANSFORMER, save_every=ranks.HALF)

    def stop(step: int, measures: dict[str, float]) -> None:
        if step == ranks.HALF - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    train(transformer_stage(begun), begun, folder / "one-then-two", report=stop)
    wide = transformer_stage(begun, **ranks.WIDE)
    train(wide, begun, folder / "one-then-sharded", report=stop)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(Path(ranks.__file__)), str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return folder, processes, printed


def assert_same_curve(left: Path, right: Path) -> None:
    for ours, theirs in zip(lines(left), lines(right), strict=True):
        assert list(ours) == list(theirs)
        assert ours == pytest.approx(theirs, rel=2e-3, abs=2e-4)


def assert_same_matrices(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert list(left) == list(right)
    for name, tensor in left.items():
        if tensor.ndim < 2:
            continue  # biases before a norm have no gradient but rounding, which AdamW enlarges
        torch.testing.assert_close(tensor, right[name], rtol=1e-3, atol=1e-3)


def assert_same_course(left: Path, right: Path) -> None:
    """The same losses and weights, within what the order of sums changes."""
    assert_same_curve(left, right)
    states = [torch.load(folder / STATE, weights_only=True) for folder in (left, right)]
    for part in ("model", "ema"):
        assert_same_matrices(states[0][part], states[1][part])
    assert states[0]["step"] == states[1]["step"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """Runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    train(transformer_stage(ranks.TRANSFORMER), ranks.TRANSFORMER, folder / "transformer")
    for kind in KINDS:
        stage = transformer_stage(ranks.TRANSFORMER, kind=kind, **ranks.WIDE)
        train(stage, ranks.TRANSFORMER, folder / kind)
    stage = ranks.seeded(tokenizer_stage, ranks.TOKENIZER)
    train(stage, ranks.TOKENIZER, folder / "tokenizer")
    return folder


@pytest.mark.parametrize("name", ["transformer", "tokenizer"])
def test_two_processes_learn_what_one_does(pair, alone, name):
    assert_same_course(pair[0] / name, alone / name)
    first, last = lines(alone / name)[0]["loss"], lines(alone / name)[-1]["loss"]
    assert abs(first - last) > 0.01  # the curves are no flat lines
    if name == "tokenizer":
        assert any("adversarial" in line for line in lines(alone / name))


def test_parts_one_after_another_are_the_same_batch(pair, alone):
    assert_same_course(pair[0] / "accumulated", alone / "transformer")
    assert_same_course(pair[0] / "tokenizer-in-pieces", alone / "tokenizer")


def test_both_extract_and_each_reads_all(pair):
    tokens = extract_tokens(tiny.tokenizer(), tiny.photos(10)).tokens[:, 1].tolist()
    found = [json.loads((pair[0] / f"encoded-{rank}.json").read_text()) for rank in range(2)]
    assert [rows for rows, _ in found] == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7]]
    assert [read for _, read in found] == [tokens, tokens]


def test_a_signal_to_one_process_stops_both_at_one_step(pair):
    ends = [(pair[0] / f"stopped-{rank}").read_text() for rank in range(2)]
    assert ends == [str(ranks.HALF)] * 2


def test_a_run_of_two_goes_on_with_one(pair, alone):
    folder = pair[0] / "two-then-one"
    assert torch.load(folder / STATE, weights_only=True)["step"] == ranks.HALF
    train(transformer_stage(ranks.TRANSFORMER), ranks.TRANSFORMER, folder)
    assert_same_course(folder, alone / "transformer")


def test_a_run_of_one_goes_on_with_two(pair, alone):
    assert_same_course(pair[0] / "one-then-two", alone / "transformer")


def assert_same_use(left: Path, right: Path) -> None:
    """The same losses and the same exported network."""
    assert_same_curve(left, right)
    networks = [load_checkpoint(folder / WEIGHTS).transformer for folder in (left, right)]
    assert_same_matrices(*(network.state_dict() for network in networks))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_cut_among_two_learn_what_whole_ones_do(pair, alone, kind):
    folder = pair[0] / f"sharded-{kind}"
    assert_same_use(folder, alone / kind)
    state = torch.load(folder / STATE, weights_only=True)
    assert "model" not in state
    # Older states have been removed, and each rank has written its own slices.
    assert [path.name for path in folder.glob("state-*")] == [state["shards"]]
    assert len(list((folder / state["shards"]).glob("*.safetensors"))) == 2


def test_cut_weights_go_on_with_one_process(pair, alone):
    folder = pair[0] / "sharded-then-one"
    state = torch.load(folder / STATE, weights_only=True)
    assert state["step"] == ranks.HALF and "shards" in state
    left = folder / state["shards"]
    (copied := folder.with_name("damaged")).mkdir()
    shutil.copy(folder / STATE, copied)
    shutil.copytree(left, copied / left.name)
    stage = transformer_stage(ranks.SHARDED, **ranks.WIDE)
    next((copied / left.name).glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="cannot be resumed"):
        train(stage, ranks.SHARDED, copied)
    train(transformer_stage(ranks.SHARDED, **ranks.WIDE), ranks.SHARDED, folder)
    assert_same_use(folder, alone / "class_token")
    assert not left.exists()


def test_whole_weights_go_on_cut_among_two(pair, alone):
    assert_same_use(pair[0] / "one-then-sharded", alone / "class_token")


def test_a_loss_that_is_nan_on_one_rank_sends_both_back(pair):
    logged = [json.loads(text) for text in (pair[0] / "spoilt" / METRICS).read_text().splitlines()]
    (event,) = [line for line in logged if "rollback" in line]
    assert event == {"step": 5, "rollback": 1, "from_step": ranks.HALF + 1, "rate_scale": 0.5}
    taken = [line["step"] for line in logged if "loss" in line]
    assert taken == list(range(1, ranks.TRANSFORMER.max_steps + 1))
    state = torch.load(pair[0] / "spoilt" / STATE, weights_only=True)
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_the_loss_of_a_process_ends_the_other_and_costs_an_interval_at_most(pair, alone):
    folder, processes, printed = pair
    assert [process.returncode for process in processes] == [3, -signal.SIGKILL], printed
    assert "another process of the run has ended" in printed[0]
    killed = folder / "killed"
    saved = torch.load(killed / STATE, weights_only=True)["step"]
    assert ranks.KILLED - ranks.TRANSFORMER.save_every < saved <= ranks.KILLED
    load_checkpoint(killed / WEIGHTS)
    train(transformer_stage(ranks.TRANSFORMER), ranks.TRANSFORMER, killed)
    assert_same_course(killed, alone / "transformer")
    assert not tiny.leftovers(killed)


def torchrun(*command: object) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--local-addr=127.0.0.1", "--nproc-per-node=2", "-m", "maskgit_core"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [*launcher, *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("name", ["train-tokenizer", "train-transformer"])
def test_torchrun_starts_the_same_command_on_two(name, photo_folder, tiny_checkpoint, tmp_path):
    options = {
        "train-tokenizer": [*tiny.TOKENIZER_OPTIONS, "--continuous-steps", 2],
        "train-transformer": ["--tokenizer", tiny_checkpoint, *tiny.TRANSFORMER_OPTIONS],
    }[name]
    out = tmp_path / "out"
    done = torchrun(name, "--data", photo_folder, "--out", out, *SHORT, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished at step 6") == 1
    assert "Traceback" not in done.stderr
    assert steps(out) == list(range(1, 7))
    load_checkpoint(out / "checkpoint")


@pytest.mark.parametrize("minutes", [0, 0.05])
def test_torchrun_trains_both_stages_on_two(minutes, photo_folder, tmp_path):
    out = tmp_path / "out"
    command = [*from_nothing(photo_folder, out), "--minutes", minutes, "--samples", 3]
    done = torchrun(*command)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("finished after") == 1
    assert done.stdout.count("tokenizer and transformer are trained from nothing") == 1
    load_checkpoint(out / "checkpoint")
    stages = json.loads((out / "train.json").read_text())["stages"]
    assert [stages[name]["done"] for name in ("tokenizer", "transformer")] == [True, True]
    for name, stage in stages.items():
        saved = torch.load(out / name / STATE, weights_only=True)["step"]
        assert saved == stage["steps"] >= 1
    # Finished: nothing more is trained, by one process or two.
    logs = [(out / name / "metrics.jsonl").read_bytes() for name in stages]
    assert run(*command) == 0
    assert [(out / name / "metrics.jsonl").read_bytes() for name in stages] == logs
