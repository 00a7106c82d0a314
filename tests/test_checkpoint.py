"""Checkpoints: what is saved comes back, damage is named, nothing is ever filled at random."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from maskgit_core import CheckpointError, SamplingConfig
from maskgit_core.files import write_atomically
from maskgit_core.weights import checkpoint as module
from maskgit_core.weights.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    TRANSFORMER_FILE,
    load_checkpoint,
    save_checkpoint,
)

FILES = (CONFIG_FILE, TOKENIZER_FILE, TRANSFORMER_FILE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def save(folder: Path, seed: int = 0, **options: object) -> None:
    save_checkpoint(
        folder,
        tokenizer=tiny.tokenizer(seed),
        transformer=tiny.transformer(seed),
        classes=list(tiny.CLASSES),
        **options,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def change_config(folder: Path, part: str | None, **values: object) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    (config if part is None else config[part]).update(values)
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")


def assert_same_weights(left: torch.nn.Module, right: torch.nn.Module, dtype: torch.dtype) -> None:
    wanted = right.state_dict()
    for name, tensor in left.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, wanted[name].to(dtype).float()), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_round_trip(tmp_path, dtype):
    sampling = SamplingConfig(num_steps=7, order="halton", top_k=5)
    save(tmp_path, dtype=dtype, sampling=sampling)
    loaded = load_checkpoint(tmp_path)
    assert_same_weights(loaded.tokenizer, tiny.tokenizer(), dtype)
    assert_same_weights(loaded.transformer, tiny.transformer(), dtype)
    assert loaded.classes == tiny.CLASSES
    assert loaded.sampling == sampling
    assert not loaded.tokenizer.training and not loaded.transformer.training
    stored = load_file(tmp_path / TOKENIZER_FILE)
    assert {tensor.dtype for tensor in stored.values()} == {dtype}


def test_the_network_of_the_configuration_is_built(tmp_path):
    adaln = tiny.transformer(kind="adaln", num_registers=2, merge=2)
    save_checkpoint(
        tmp_path, tokenizer=tiny.tokenizer(), transformer=adaln, classes=list(tiny.CLASSES)
    )
    loaded = load_checkpoint(tmp_path).transformer
    assert type(loaded) is type(adaln)
    assert loaded.config == adaln.config
    tokens, labels = torch.randint(0, 33, (2, 16)), torch.tensor([0, 3])
    assert torch.equal(loaded(tokens, labels), adaln(tokens, labels))


def test_a_tokenizer_alone(tmp_path):
    save_checkpoint(tmp_path, tokenizer=tiny.tokenizer(), classes=["a"])
    loaded = load_checkpoint(tmp_path)
    assert loaded.transformer is None
    assert not (tmp_path / TRANSFORMER_FILE).exists()


def test_class_names_in_any_script(tmp_path):
    names = ["森林", "море", "été"]
    save_checkpoint(
        tmp_path, tokenizer=tiny.tokenizer(), transformer=tiny.transformer(), classes=names
    )
    assert load_checkpoint(tmp_path).classes == names
    assert "森林" in (tmp_path / CONFIG_FILE).read_text(encoding="utf-8")


def test_files_are_as_readable_as_any_other(folder):
    plain = folder / "plain"
    plain.write_text("")
    for name in FILES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_classes_must_fit_the_transformer(tmp_path):
    with pytest.raises(ValueError, match="classes must hold 3 names; got 1"):
        save_checkpoint(
            tmp_path, tokenizer=tiny.tokenizer(), transformer=tiny.transformer(), classes=["a"]
        )
    with pytest.raises(ValueError, match="no kind is a Linear; known kinds: conv_vq"):
        save_checkpoint(tmp_path, tokenizer=torch.nn.Linear(1, 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"{name} is missing in {folder}")):
        load_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint folder .*nowhere"):
        load_checkpoint(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="there is no checkpoint folder"):
        load_checkpoint(tmp_path / "file")


@pytest.mark.parametrize("name", [TOKENIZER_FILE, TRANSFORMER_FILE])
@pytest.mark.parametrize("share", [0.0, 0.0003, 0.01, 0.5, 0.999])
def test_a_file_that_is_cut_short(folder, name, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=f"{name} is damaged or cut short"):
        load_checkpoint(folder)


def test_a_folder_in_place_of_a_file(folder):
    (folder / TOKENIZER_FILE).unlink()
    (folder / TOKENIZER_FILE).mkdir()
    with pytest.raises(CheckpointError, match=TOKENIZER_FILE):
        load_checkpoint(folder)


def test_a_pickle_is_not_opened(folder):
    torch.save(tiny.tokenizer().state_dict(), folder / TOKENIZER_FILE)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(folder)


def change_weights(folder: Path, change) -> None:
    tensors = load_file(folder / TOKENIZER_FILE)
    change(tensors)
    save_file(tensors, folder / TOKENIZER_FILE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("quantizer.codebook"), "1 missing: quantizer.codebook"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (
            lambda t: t.update({"quantizer.codebook": torch.zeros(31, 4)}),
            "1 misshapen: quantizer.codebook is (31, 4), not (32, 4)",
        ),
        (
            lambda t: t.update({"quantizer.codebook": torch.zeros(32, 4, dtype=torch.int32)}),
            "quantizer.codebook must be float",
        ),
        (
            lambda t: t.update({"quantizer.codebook": torch.full((32, 4), torch.nan)}),
            "quantizer.codebook holds nan or infinity",
        ),
        (lambda t: t.clear(), "missing"),
    ],
)
def test_weights_that_do_not_fit(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_checkpoint(folder)


def test_a_long_list_of_names_is_cut(folder):
    change_weights(folder, lambda tensors: [tensors.pop(name) for name in list(tensors)[1:]])
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more") as caught:
        load_checkpoint(folder)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["", "{", "nonsense", "\x00", '"text"', "[]", "null", "{}"])
def test_nonsense_for_a_configuration(folder, text):
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=CONFIG_FILE):
        load_checkpoint(folder)


def test_a_configuration_that_is_nested_without_end(folder):
    (folder / CONFIG_FILE).write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=CONFIG_FILE):
        load_checkpoint(folder)


def test_bytes_that_are_no_text(folder):
    (folder / CONFIG_FILE).write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match=f"{CONFIG_FILE} in .* cannot be read"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (None, {"format": 2}, "has format 2; this version reads 1"),
        (None, {"transfomer": {}}, "unknown entry 'transfomer'.*did you mean 'transformer'"),
        (None, {"tokenizer": 3}, "tokenizer kind must be one of conv_vq.*got 3"),
        (None, {"transformer": None}, "transformer kind must be one of class_token"),
        (None, {"classes": "rose"}, "classes .* must be a list of names"),
        (None, {"classes": ["a", 2, "c"]}, "classes .* must be a list of names"),
        (None, {"classes": ["a", "b"]}, "knows 3 classes, config.json names 2"),
        (None, {"sampling": []}, "sampling in config.json"),
        (None, {"sampling": None}, "sampling in config.json"),
        ("sampling", {"num_step": 3}, "unknown setting 'num_step'.*did you mean 'num_steps'"),
        ("sampling", {"num_steps": 0}, "num_steps must be"),
        ("tokenizer", {"kind": "magic"}, "tokenizer kind must be one of .*got 'magic'"),
        ("tokenizer", {"kind": ["conv_vq"]}, "tokenizer kind must be one of"),
        ("tokenizer", {"width": 8}, "unknown setting 'width'.*did you mean 'widths'"),
        ("tokenizer", {"widths": [8.0, 16]}, "widths must be a whole number"),
        ("tokenizer", {"widths": "wide"}, "widths must be a list"),
        ("tokenizer", {"encoder_blocks": [1, "1"]}, "encoder_blocks must be a whole number"),
        ("tokenizer", {"codebook_dim": 10**30}, "network|misshapen"),
        ("transformer", {"depth": 3}, "missing: blocks.2"),
        ("transformer", {"depth": 1}, "unexpected: blocks.1"),
        ("transformer", {"width": 32}, "misshapen"),
        ("transformer", {"kind": "adaln"}, "missing"),
        ("transformer", {"codebook_size": 64}, "has codebook size 32, the transformer 64"),
        ("transformer", {"grid_size": 8}, "has grid size 4, the transformer 8"),
        ("transformer", {"num_classes": 7}, "knows 7 classes, config.json names 3"),
    ],
)
def test_a_configuration_that_does_not_fit(folder, part, values, message):
    change_config(folder, part, **values)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def fail_with_full_disk(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def replace_then_fail(done: int):
    """An os.replace that moves `done` files and then finds the disk full."""
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) > done:
            fail_with_full_disk()
        real(source, target)

    return replace


def test_a_full_disk_leaves_the_old_checkpoint(folder, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr(module, "save_file", fail_with_full_disk)
    with pytest.raises(CheckpointError, match="could not write tokenizer.*No space left on device"):
        save(folder, seed=1)
    assert contents(folder) == before


def test_a_disk_that_fills_up_at_the_second_file_leaves_the_first(folder, monkeypatch):
    before, real = contents(folder), module.save_file

    def save_the_tokenizer_only(tensors, path):
        if "quantizer.codebook" not in tensors:
            Path(path).write_bytes(b"half")
            fail_with_full_disk()
        real(tensors, path)

    monkeypatch.setattr(module, "save_file", save_the_tokenizer_only)
    with pytest.raises(CheckpointError, match="could not write transformer"):
        save(folder, seed=1)
    assert contents(folder) == before


def test_a_move_that_fails_leaves_the_old_checkpoint(folder, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr(os, "replace", fail_with_full_disk)
    with pytest.raises(CheckpointError, match="what was there before is unchanged"):
        save(folder, seed=1)
    assert contents(folder) == before


def test_no_temporary_file_is_left_whatever_happens(folder, monkeypatch):
    monkeypatch.setattr(os, "replace", replace_then_fail(1))
    with pytest.raises(CheckpointError):
        save(folder, seed=1)
    assert not tiny.leftovers(folder)

    def interrupt(path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(folder / CONFIG_FILE, interrupt)
    assert not tiny.leftovers(folder)
    assert b"half" not in (folder / CONFIG_FILE).read_bytes()


def test_a_link_stays_a_link_and_no_pipe_is_replaced(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", lambda part: Path(part).write_text("new"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(CheckpointError, match="it is no regular file"):
            write_atomically(tmp_path / name, lambda part: Path(part).write_text("new"))
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="could not write"):
        save(tmp_path / "file" / "checkpoint")
    assert (tmp_path / "file").read_text() == "mine"


def test_weights_are_never_random(folder):
    """Loading twice, with other random numbers in between, gives the same network."""
    torch.manual_seed(1)
    first = load_checkpoint(folder)
    torch.manual_seed(2)
    second = load_checkpoint(folder)
    assert_same_weights(first.tokenizer, second.tokenizer, torch.float32)
    assert_same_weights(first.transformer, second.transformer, torch.float32)
    for parameter in (*first.tokenizer.parameters(), *first.transformer.parameters()):
        assert not parameter.is_meta
