"""Published weight files: formats, damage, and pickles that try to run code."""

from __future__ import annotations

import io
import os
import pickle
import re
import sys
import types
import zipfile
from pathlib import Path

import msgpack
import pytest
import torch
from safetensors.torch import save_file

from maskgit_core.files import CheckpointError
from maskgit_core.weights.convert import convert_tokenizer, convert_transformer
from maskgit_core.weights.formats import find_tensors, flax_value, join_chunks, read_weights
from parity_files import (
    PARITY,
    TRANSFORMERS,
    resave,
    weight_file,
)


def test_format_does_not_follow_from_the_file_name(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_bytes((PARITY / "google-generator" / "weights.msgpack").read_bytes())
    assert convert_transformer(target, num_classes=10).config.depth == 3
    flat = read_weights(PARITY / "llamagen-vq" / "weights.pt").tensors
    save_file({name: tensor.contiguous() for name, tensor in flat.items()}, target)
    assert convert_tokenizer(target).config.l2_normalize
    torch.save({"step": 3, "ema": flat, "model": {"other": torch.zeros(1)}}, target)
    assert convert_tokenizer(target).config.l2_normalize
    torch.save(flat, target, _use_new_zipfile_serialization=False)
    assert convert_tokenizer(target).config.l2_normalize


def test_networks_do_not_share_memory_with_the_file(tmp_path):
    path = resave(tmp_path / "weights", "maskgit-v1")
    network = convert_transformer(path, num_heads=4, num_classes=10)
    before = network.embedding.weight.clone()
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(network.embedding.weight, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!doctype html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"GIF89a", "of an unknown format"),
        (pickle.dumps({"a": 1}, protocol=2), "damaged or cut short|not read"),
        (msgpack.packb({"a": 1}), "holds no weights"),
        (b"\x82\xc1", "damaged or cut short"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        convert_transformer(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read .*No such file"):
        convert_tokenizer(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        convert_tokenizer(tmp_path)
    path = tmp_path / "foreign.pt"
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, path)
    with pytest.raises(CheckpointError, match="no known family .*fc.weight"):
        convert_tokenizer(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("family", ["halton", "google-generator", "taming-vqgan"])
def test_truncated_files(tmp_path, family, share):
    content = weight_file(family).read_bytes()
    path = tmp_path / "weights"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        (convert_transformer if family in TRANSFORMERS else convert_tokenizer)(path)


class Runs:
    """Pickles as a call of a function with one argument."""

    def __init__(self, function, argument):
        self.call = (function, (argument,))

    def __reduce__(self):
        return self.call


def make_folder(path):
    Path(path).mkdir()


@pytest.mark.parametrize("function", [os.mkdir, make_folder, eval, exec, __import__])
@pytest.mark.parametrize("whole", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, function, whole):
    marker = tmp_path / "ran"
    by_path = function in (os.mkdir, make_folder)
    argument = str(marker) if by_path else f"__import__('os').mkdir({str(marker)!r})"
    evil = Runs(function, argument)
    path = tmp_path / "weights.ckpt"
    weights = read_weights(PARITY / "taming-vqgan" / "weights.ckpt").tensors
    torch.save(evil if whole else {"state_dict": weights, "callbacks": evil}, path)
    with pytest.raises(CheckpointError, match="tries to run code"):
        convert_tokenizer(path)
    path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(CheckpointError, match="tries to run code"):
        convert_tokenizer(path)
    assert not marker.exists()


def lightning_file(path: Path, monkeypatch) -> None:
    """Write the taming fixture with objects of a module that is gone when the file is read."""
    module = types.ModuleType("some_trainer.callbacks")
    source = """
class State(dict):
    pass
class Callback:
    def __init__(self): self.best = 3.5
    def __setstate__(self, state): raise RuntimeError("must not run")
"""
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "some_trainer", types.ModuleType("some_trainer"))
    monkeypatch.setitem(sys.modules, "some_trainer.callbacks", module)
    weights = read_weights(PARITY / "taming-vqgan" / "weights.ckpt").tensors
    content = {
        "callbacks": {module.Callback: {"best": module.Callback()}},
        "hyper_parameters": module.State(rate=1e-4, path=Path("a/b")),
        "state_dict": {
            name: torch.nn.Parameter(weight) if weight.is_floating_point() else weight
            for name, weight in weights.items()
        },
        "optimizer_states": [torch.zeros(3)],
    }
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, "some_trainer.callbacks")
    monkeypatch.delitem(sys.modules, "some_trainer")


def test_foreign_classes_become_placeholders(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    lightning_file(path, monkeypatch)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    network = convert_tokenizer(path)
    same = convert_tokenizer(PARITY / "taming-vqgan" / "weights.ckpt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert "some_trainer" not in sys.modules


def test_a_damaged_archive_with_foreign_classes(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    lightning_file(path, monkeypatch)
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.namelist():
            if not re.search(r"/data/3$", entry):
                target.writestr(entry, source.read(entry))
    path.write_bytes(copy.getvalue())
    with pytest.raises(CheckpointError):
        convert_tokenizer(path)


def test_msgpack_arrays_of_every_form():
    inner = msgpack.packb(((2, 2), "bfloat16", b"\x80\x3f" * 4))
    chunk = msgpack.ExtType(1, msgpack.packb(((3,), "float32", bytes(12))))
    tree = {
        "params": {
            "half": msgpack.ExtType(1, inner),
            "scalar": msgpack.ExtType(3, msgpack.packb(((), "float32", b"\0\0\x80\x3f"))),
            "big": {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 2, "1": 3},
                "chunks": {"0": chunk, "1": chunk},
            },
        }
    }
    read = msgpack.unpackb(msgpack.packb(tree), ext_hook=flax_value)
    tensors = find_tensors(join_chunks(read))
    assert torch.equal(tensors["half"], torch.ones(2, 2, dtype=torch.bfloat16))
    assert tensors["scalar"].shape == () and float(tensors["scalar"]) == 1
    assert tensors["big"].shape == (2, 3)
