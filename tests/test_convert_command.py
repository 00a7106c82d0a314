"""`convert` with a published name: what it fetches, keeps and writes."""

from __future__ import annotations

import pytest

from commands import assert_refused, run
from maskgit_core.weights.checkpoint import load_checkpoint
from maskgit_core.weights.hub import fetch_weights
from published import TINY, TRANSFORMER_KEY, home, published_hub, transfers


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with the published files, and a client that knows no other and an empty cache."""
    with published_hub(monkeypatch, tmp_path / "home") as running:
        yield running


def test_convert_by_name_keeps_the_download_only_when_asked(server, tmp_path, capsys):
    for word in ("--checkpoint", None):
        name = [word, "imagenet-256-tiny"] if word else ["imagenet-256-tiny"]
        assert run("convert", *name, "--out", tmp_path / "out", "--half") == 0
        assert not (home() / "maskgit-downloads").exists()
        assert not (home() / "maskgit").exists()  # in the folder that was asked for, only there
    assert load_checkpoint(tmp_path / "out").sampling == TINY.sampling
    out = tmp_path / "kept"
    assert run("convert", "imagenet-256-tiny", "--out", out, "--keep-download") == 0
    folder = home() / "maskgit-downloads" / "imagenet-256-tiny"
    assert str(folder) in capsys.readouterr().err
    assert (folder / TINY.transformer.path).read_bytes() == server.files[TRANSFORMER_KEY]
    asked = len(transfers(server, TINY.transformer.path))
    load_checkpoint(fetch_weights("imagenet-256-tiny"))
    assert len(transfers(server, TINY.transformer.path)) == asked
    assert (folder / TINY.transformer.path).is_file()


def test_convert_says_what_it_needs(capsys, tmp_path):
    out = ("convert", "--out", tmp_path / "out")
    assert_refused(capsys, *out, says="give a name with --checkpoint, or two files")
    assert_refused(capsys, *out, "--tokenizer", "a", says="give a name with --checkpoint, or two")
    assert_refused(capsys, *out, "x", "--tokenizer", "a", says="and not both")
    assert_refused(capsys, *out, "x", "--checkpoint", "y", says="name must be given once")
    assert_refused(capsys, *out, "x", "--num-classes", 3, says="num-classes is for --tokenizer")
    assert_refused(capsys, *out, "x", "--push", "tiny", says="repo must be owner/name")
    files = ("--tokenizer", "a", "--transformer", "b")
    assert_refused(
        capsys, *out, *files, "--keep-download", says="keep-download is for --checkpoint"
    )
