"""Checkpoints of ours on the Hub: up, down, and what the Hub's cache does with them."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

from commands import run
from fake_hub import COMMIT, running_hub, talk_to, xet_hash
from maskgit_core import CheckpointError, MaskGIT
from maskgit_core.config import TokenizerConfig, TransformerConfig
from maskgit_core.hub_client import FetchError
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.transformer import MaskedTransformer
from maskgit_core.weights.checkpoint import load_checkpoint, save_checkpoint
from maskgit_core.weights.hub import fetch_weights, push_to_hub, resolve_checkpoint
from maskgit_core.weights.known import KNOWN_WEIGHTS


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An empty Hub, and a client that knows no other and has an empty cache."""
    with running_hub() as running:
        talk_to(running, monkeypatch, tmp_path / "home")
        yield running


def make_checkpoint(folder: Path) -> Path:
    """Write a small checkpoint of ours."""
    tokenizer = VQTokenizer(
        TokenizerConfig(16, (8, 8), (1, 1), (1, 1), codebook_size=8, codebook_dim=4)
    )
    transformer = MaskedTransformer(
        TransformerConfig(8, 2, grid_size=4, width=16, depth=1, num_heads=2, mlp_width=16)
    )
    save_checkpoint(folder, tokenizer=tokenizer, transformer=transformer, classes=["a", "b"])
    return folder


@pytest.fixture
def uploaded(server, tmp_path):
    """The server with a checkpoint of ours as me/tiny."""
    push_to_hub(make_checkpoint(tmp_path / "mine"), "me/tiny")
    return server


def shared_blob(server, name: str) -> Path:
    """Return where the shared store keeps a file of me/tiny."""
    digits = xet_hash(server.files["me/tiny", name])
    return Path(huggingface_hub.constants.HF_HUB_CACHE) / "blobs" / digits[:2] / digits


def damage(path: Path) -> None:
    """Change the last byte of a file and nothing of its size."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def test_it_goes_up_and_comes_down(server, tmp_path):
    make_checkpoint(tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("not for others")
    address = push_to_hub(tmp_path / "mine", "me/tiny")
    assert address.endswith(COMMIT)
    assert ("me/tiny", "notes.txt") not in server.files
    for revision in (None, COMMIT):
        folder = fetch_weights("me/tiny", revision=revision)
        assert load_checkpoint(folder).classes == ["a", "b"]
    assert resolve_checkpoint("me/tiny") == folder
    assert resolve_checkpoint(str(tmp_path / "mine")) == tmp_path / "mine"
    with pytest.raises(CheckpointError, match="has no revision v9"):
        fetch_weights("me/tiny", revision="v9")


@pytest.mark.parametrize("shared", [True, False])
def test_the_cache_is_used_with_and_without_the_shared_store(uploaded, monkeypatch, shared):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SHARED_BLOBS", not shared)
    folder = fetch_weights("me/tiny")
    stored = (folder / "transformer.safetensors").resolve()
    blob = shared_blob(uploaded, "transformer.safetensors")
    assert stored == blob if shared else stored.parent.name == "blobs"
    assert blob.is_file() == shared
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(uploaded.requests)
    assert MaskGIT.from_pretrained("me/tiny").classes == ["a", "b"]
    assert len(uploaded.requests) == asked


def test_what_is_damaged_on_the_way_is_refused_and_never_taken_from_the_shared_store(uploaded):
    name = "transformer.safetensors"
    content = bytearray(uploaded.files["me/tiny", name])
    content[-1] ^= 1
    uploaded.swapped[name] = bytes(content)
    with pytest.raises(FetchError, match="the link to it has been removed, try again"):
        fetch_weights("me/tiny")
    blob = shared_blob(uploaded, name)
    assert blob.is_file()
    assert not list(Path(huggingface_hub.constants.HF_HUB_CACHE).glob(f"**/snapshots/*/{name}"))
    uploaded.swapped.clear()
    # The client would only link to what is in its store; it is made to fetch it anew.
    assert load_checkpoint(fetch_weights("me/tiny")).classes == ["a", "b"]


def test_what_another_program_left_damaged_is_fetched_anew(uploaded, monkeypatch):
    fetch_weights("me/tiny")
    blob = shared_blob(uploaded, "tokenizer.safetensors")
    damage(blob)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="tokenizer.safetensors from me/tiny is not what the Hub"):
        fetch_weights("me/tiny")
    assert blob.is_file()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    load_checkpoint(fetch_weights("me/tiny"))


def test_repositories_of_another_form(server, tmp_path):
    server.files["me/other", "config.json"] = b'{"model_type": "bert"}'
    with pytest.raises(CheckpointError, match="format None"):
        fetch_weights("me/other")
    repo = KNOWN_WEIGHTS["imagenet-256-tiny"].repo
    server.files[repo, "ImageNet_256_tiny.pth"] = b"weights"
    with pytest.raises(CheckpointError, match="has no file config.json"):
        fetch_weights(repo)
    make_checkpoint(tmp_path / "mine")
    server.files["me/half", "config.json"] = (tmp_path / "mine" / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match="has no file tokenizer.safetensors"):
        fetch_weights("me/half")


def test_what_cannot_be_pushed(server, tmp_path):
    with pytest.raises(ValueError, match="repo must be owner/name; got 'tiny'"):
        push_to_hub(tmp_path, "tiny")
    with pytest.raises(CheckpointError, match="config.json is missing"):
        push_to_hub(tmp_path, "me/tiny")
    make_checkpoint(tmp_path)
    (tmp_path / "transformer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="transformer.safetensors is missing"):
        push_to_hub(tmp_path, "me/tiny")


def test_convert_halves_and_pushes_what_a_visitor_then_loads(server, tmp_path):
    mine = make_checkpoint(tmp_path / "mine")
    out = tmp_path / "half"
    assert run("convert", "--checkpoint", mine, "--out", out, "--half", "--push", "me/small") == 0
    for part in ("tokenizer", "transformer"):
        full, half = (load_file(folder / f"{part}.safetensors") for folder in (mine, out))
        assert {tensor.dtype for tensor in half.values()} == {torch.float16}
        assert all(torch.equal(half[name].float(), full[name].half().float()) for name in full)
    model = MaskGIT.from_pretrained("me/small")
    assert model.generate(["b"], seed=1).images.shape == (1, 3, 16, 16)
