"""Weight files that are small and never end or grow, and the foreign objects that do no harm."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import enum
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import hostile
from commands import assert_refused
from maskgit_core import CheckpointError
from maskgit_core.weights.checkpoint import load_checkpoint
from maskgit_core.weights.convert import convert_tokenizer, convert_transformer
from maskgit_core.weights.formats import read_weights
from parity_files import PARITY

NAMES = [*hostile.pickles(), *hostile.others()]


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> dict[str, dict]:
    """What a process of its own, which may be ended, made of every file."""
    done = subprocess.run(
        [sys.executable, hostile.__file__, str(tmp_path_factory.mktemp("hostile"))],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(hostile.__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        timeout=500,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:] + f"after {lines[-1:]}"
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_refused_at_once_with_one_sentence(readings, name):
    reading = readings[name]
    assert name in reading["says"] or "not supported" in reading["says"]
    assert "\n" not in reading["says"] and len(reading["says"]) < 300
    assert reading["seconds"] < 5 and reading["megabytes"] < 1000


def test_the_shell_refuses_in_one_line(tmp_path, capsys):
    hostile.archive(tmp_path / "a.pt", hostile.SHARED_DICTS + b".")
    files = ("--tokenizer", tmp_path / "a.pt", "--transformer", tmp_path / "a.pt")
    assert_refused(capsys, "convert", *files, "--out", tmp_path / "o", says="a.pt holds no weights")


def test_an_old_tar_is_not_unpacked(tmp_path):
    (tmp_path / "storages").write_bytes(b"x")
    with tarfile.open(tmp_path / "old.tar", "w") as file:
        file.add(tmp_path / "storages", "\x80\x02storages")
    with pytest.raises(CheckpointError, match="old.tar is"):
        convert_transformer(tmp_path / "old.tar")


def test_numbers_that_are_too_large_for_16_bits(tmp_path):
    pair = [PARITY / "llamagen-vq" / "weights.pt", PARITY / "halton" / "weights.pth"]
    content = torch.load(pair[1], weights_only=True)
    content["model_state_dict"]["cls_emb.weight"][0, 0] = 1e5
    torch.save(content, tmp_path / "large.pth")
    from maskgit_core.weights.convert import convert_checkpoint

    with pytest.raises(CheckpointError, match="class_embedding.weight has values that 16-bit"):
        convert_checkpoint(
            pair[0], tmp_path / "large.pth", tmp_path / "o", num_heads=4, dtype=torch.float16
        )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 100_000, "cannot be read"),
        (" " * 5_000_000, "longer than any configuration"),
        ('{"format": 1' + "0" * 5000 + "}", "cannot be read"),
    ],
)
def test_configurations_that_are_not_read(tmp_path, content, says):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=says):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("transformer", {"depth": 10**9}),
        ("transformer", {"kind": "bert", "depth": 10**6, "num_registers": None}),
        ("tokenizer", {"kind": "vqgan", "num_blocks": 10**9}),
        ("tokenizer", {"kind": "vqgan", "widths": [32] * 30, "image_size": 2**40}),
    ],
)
def test_configurations_that_ask_for_endless_networks(tiny_checkpoint, tmp_path, part, change):
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    kept = {key: value for key, value in config[part].items() if change.get("kind") is None}
    if change.get("kind") == "bert":
        shared = ("codebook_size", "num_classes", "grid_size", "width", "num_heads", "mlp_width")
        kept = {key: config[part][key] for key in shared}
    elif change.get("kind"):
        kept = {
            "codebook_size": config[part]["codebook_size"],
            "image_size": 16,
            "widths": [32] * 3,
        }
        kept |= {"stem_width": 32, "attention_levels": []}
    config[part] = {**kept, **{key: value for key, value in change.items() if value is not None}}
    for name in ("tokenizer.safetensors", "transformer.safetensors"):
        (tmp_path / name).write_bytes((tiny_checkpoint / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)


def test_a_yaml_bomb(tmp_path):
    lines = ["a: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    path = PARITY / "llamagen-vq" / "weights.pt"
    assert convert_tokenizer(path, config=tmp_path / "bomb.yaml").config.l2_normalize


class State(dict):
    """A dict with attributes, as training frameworks have them."""


class Steps(list):
    """A list of a class of its own."""


class Mode(enum.Enum):
    """Pickles as a call of the class."""

    FAST = 1


class Slots:
    """Pickles with a state that is no dict."""

    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = 0.1


def test_what_training_frameworks_leave_in_their_files(tmp_path):
    state = State(rate=1e-4)
    state.name = "kept beside the items"
    tensors = read_weights(PARITY / "llamagen-vq" / "weights.pt").tensors
    module = torch.nn.Linear(2, 2).state_dict()  # an OrderedDict with an attribute
    content = {
        "model": collections.OrderedDict(tensors),
        "args": argparse.Namespace(lr=1e-4, path=Path("a/b"), sizes=(1, 2)),
        "hyper_parameters": state,
        "steps": Steps([1, 2]),
        "mode": Mode.FAST,
        "slots": Slots(),
        "best": np.float64(3.5),
        "losses": np.arange(6.0),
        "random": np.random.RandomState(0).get_state(),
        "when": dt.datetime(2026, 11, 1, tzinfo=dt.UTC),
        "recent": collections.deque([1, 2]),
        "counts": collections.Counter("aab"),
        "nested": collections.defaultdict(list, a=[1]),
        "seen": {1, 2},
        "fixed": frozenset((1, 2)),
        "raw": b"\x00\xff",
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "size": torch.Size((1, 2)),
        "generator": torch.get_rng_state(),
        "head": module,
        "callbacks": {State: {"best": Slots}},
        "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]).state_dict(),
        "whole": torch.nn.Linear(2, 2),
    }
    torch.save(content, tmp_path / "all.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "all.ckpt", weights_only=True)
    for new in (True, False):
        if not new:
            del content["whole"]  # of which the old format keeps the program's text
        torch.save(content, tmp_path / "all.ckpt", _use_new_zipfile_serialization=new)
        file = read_weights(tmp_path / "all.ckpt")
        assert set(file.tensors) == set(tensors)
        assert all(torch.equal(file.tensors[name], tensors[name]) for name in tensors)
        assert dict(file.beside["hyper_parameters"]) == {"rate": 1e-4}
        assert type(file.beside["args"]).__name__ == "Placeholder"
