"""Weights by name, against a local server and with the Hub's real client between."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from fake_hub import COMMIT, running_hub, talk_to
from maskgit_core.config import TokenizerConfig, TransformerConfig
from maskgit_core.networks.bert import BertConfig, BertTransformer
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.transformer import AdaLNMaskedTransformer, MaskedTransformer
from maskgit_core.weights import hub
from maskgit_core.weights.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from maskgit_core.weights.families.transformers import halton_rule
from maskgit_core.weights.hub import KNOWN_WEIGHTS, fetch_weights, push_to_hub, resolve_checkpoint
from maskgit_core.weights.imagenet import imagenet_classes
from maskgit_core.weights.known import HubFile
from maskgit_core.weights.rules import source_shapes

PARITY = Path(__file__).parent / "fixtures" / "parity"
TINY = KNOWN_WEIGHTS["imagenet-256-tiny"]
TOKENIZER_KEY = (TINY.tokenizer.repo, TINY.tokenizer.path)
TRANSFORMER_KEY = (TINY.transformer.repo, TINY.transformer.path)


@pytest.fixture(scope="module")
def published_files(tmp_path_factory) -> dict[tuple[str, str], bytes]:
    """The two files of a known name, in the published nesting, with one block and 64 codes."""
    config = TransformerConfig(
        kind="adaln",
        codebook_size=64,
        num_classes=3,
        grid_size=4,
        width=384,
        depth=1,
        num_heads=6,
        mlp_width=256,
    )
    network = AdaLNMaskedTransformer(config)
    rules = {name: halton_rule(name, config) for name in network.state_dict()}
    random = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=random) * 0.02
        for name, shape in source_shapes(rules, network, 6).items()
    }
    weights["head.weight"] = weights["tok_emb.weight"]
    path = tmp_path_factory.mktemp("published") / "weights.pth"
    content = {"iter": 1, "global_epoch": 1, "model_state_dict": weights}
    torch.save({**content, "optimizer_state_dict": None}, path)
    return {
        TOKENIZER_KEY: (PARITY / "llamagen-vq" / "weights.pt").read_bytes(),
        TRANSFORMER_KEY: path.read_bytes(),
    }


@pytest.fixture
def server(published_files, tmp_path, monkeypatch):
    """A server with the published files, and a client that knows no other and an empty cache."""
    with running_hub() as running:
        running.files.update(published_files)
        talk_to(running, monkeypatch, tmp_path / "home")
        yield running


def test_first_run_downloads_and_second_run_needs_no_connection(server):
    folder = fetch_weights("imagenet-256-tiny")
    loaded = load_checkpoint(folder)
    assert loaded.transformer.config.num_heads == 6
    assert loaded.tokenizer.config.image_size == 16
    assert loaded.sampling == TINY.sampling
    first = len(server.requests)
    assert first
    assert fetch_weights("imagenet-256-tiny") == folder
    assert resolve_checkpoint("imagenet-256-tiny") == folder
    assert len(server.requests) == first
    leftovers = [path.name for path in folder.parent.iterdir() if path != folder]
    assert leftovers == []


def test_the_environment_rules_in_a_process_of_its_own(server, tmp_path):
    code = (
        "from maskgit_core.weights.hub import fetch_weights\n"
        "print(fetch_weights('imagenet-256-tiny'))"
    )
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "other"),
        "HF_ENDPOINT": server.address,
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("HF_HUB_CACHE", None)

    def run(**extra: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={**environment, **extra},
            timeout=300,
        )

    first = run()
    assert first.stdout.startswith(str(tmp_path / "other" / "maskgit")), first.stderr
    asked = len(server.requests)
    again = run(HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout
    assert len(server.requests) == asked


def test_offline_without_a_cache(server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="not in the cache, and HF_HUB_OFFLINE forbids"):
        fetch_weights("imagenet-256-tiny")
    assert not server.requests


def test_a_download_that_breaks_off_is_taken_up_again(server):
    server.cut[TINY.transformer.path] = [0.4, 0.3]
    load_checkpoint(fetch_weights("imagenet-256-tiny"))
    parts = [line for line in server.requests if line.startswith("GET /content/")]
    assert len([line for line in parts if line.endswith(TINY.transformer.path)]) == 3


def test_a_download_that_never_ends_leaves_nothing_behind(server):
    server.cut[TINY.transformer.path] = [0.0] * 20
    with pytest.raises(CheckpointError, match="not in the cache, and the download failed"):
        fetch_weights("imagenet-256-tiny")
    assert not (Path(huggingface_hub.constants.HF_HOME) / "maskgit").exists()
    server.cut.clear()
    load_checkpoint(fetch_weights("imagenet-256-tiny"))


def test_content_of_another_hash_is_refused_and_fetched_anew(server):
    content = bytearray(server.files[TOKENIZER_KEY])
    content[len(content) // 2] ^= 1
    server.swapped[TINY.tokenizer.path] = bytes(content)
    with pytest.raises(CheckpointError, match="vq_ds16_c2i.pt .* has the hash .* try again"):
        fetch_weights("imagenet-256-tiny")
    server.swapped.clear()
    load_checkpoint(fetch_weights("imagenet-256-tiny"))


def test_a_hash_in_the_record_is_checked(server, monkeypatch):
    changed = replace(TINY, tokenizer=replace(TINY.tokenizer, sha256="0" * 64))
    monkeypatch.setitem(KNOWN_WEIGHTS, TINY.name, changed)
    with pytest.raises(CheckpointError, match="not 000000000000"):
        fetch_weights(TINY.name)


@pytest.mark.parametrize(
    ("status", "word", "message"),
    [
        (401, "", r"no such repository, or it is private .*\(401\)"),
        (403, "GatedRepo", r"accept its terms .*\(403\)"),
        (404, "RepoNotFound", r"there is no Hub repository FoundationVision/LlamaGen \(404\)"),
        (404, "EntryNotFound", r"has no file vq_ds16_c2i.pt \(404\)"),
        (404, "RevisionNotFound", r"has no revision main \(404\)"),
        (429, "", r"asks to wait .*\(429\)"),
        (500, "", r"failed to send .*\(500\)"),
        (503, "", r"failed to send .*\(503\)"),
    ],
)
def test_answers_that_say_no(server, status, word, message):
    server.status[TOKENIZER_KEY] = (status, word)
    with pytest.raises(CheckpointError, match=message):
        fetch_weights("imagenet-256-tiny")


def test_no_connection(server, monkeypatch):
    nowhere = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="vq_ds16_c2i.pt .* there is no connection"):
        fetch_weights("imagenet-256-tiny")
    assert not server.requests


def test_a_full_disk(server, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(CheckpointError, match="no room on the disk for vq_ds16_c2i.pt"):
        fetch_weights("imagenet-256-tiny")


def test_a_conversion_that_fails_leaves_nothing_behind(server):
    server.files[TRANSFORMER_KEY] = server.files[TRANSFORMER_KEY][:5000]
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        fetch_weights("imagenet-256-tiny")
    assert list((Path(huggingface_hub.constants.HF_HOME) / "maskgit").iterdir()) == []


def test_unknown_names():
    with pytest.raises(CheckpointError, match="did you mean imagenet-256-base.*known names: "):
        resolve_checkpoint("imagenet-256-bse")
    with pytest.raises(CheckpointError, match="no weights named 'xyz'; known names"):
        fetch_weights("xyz")
    with pytest.raises(CheckpointError, match="there is no checkpoint folder tests/nowhere"):
        resolve_checkpoint("tests/nowhere")
    with pytest.raises(CheckpointError, match="there is no checkpoint folder"):
        resolve_checkpoint(Path("nowhere"))
    with pytest.raises(ValueError, match="revision must be left out"):
        fetch_weights("google-256", revision="main")


def make_checkpoint(folder: Path) -> None:
    """Write a small checkpoint of ours."""
    tokenizer = VQTokenizer(
        TokenizerConfig(16, (8, 8), (1, 1), (1, 1), codebook_size=8, codebook_dim=4)
    )
    transformer = MaskedTransformer(
        TransformerConfig(8, 2, grid_size=4, width=16, depth=1, num_heads=2, mlp_width=16)
    )
    save_checkpoint(folder, tokenizer=tokenizer, transformer=transformer, classes=["a", "b"])


def test_our_own_form_goes_up_and_comes_down(server, tmp_path):
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


def test_repositories_of_another_form(server, tmp_path):
    server.files["me/other", "config.json"] = b'{"model_type": "bert"}'
    with pytest.raises(CheckpointError, match="format None"):
        fetch_weights("me/other")
    with pytest.raises(CheckpointError, match="has no file config.json"):
        fetch_weights(TINY.transformer.repo)
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


def test_files_that_are_not_on_the_hub(server, monkeypatch):
    with pytest.raises(CheckpointError, match="tokenizer_imagenet256_checkpoint and maskgit_"):
        fetch_weights("google-256")
    known = KNOWN_WEIGHTS["google-256"]
    folder = Path(huggingface_hub.constants.HF_HOME) / "maskgit" / "google-256"
    folder.mkdir(parents=True)
    for part, file in zip(("tokenizer", "generator"), known.files, strict=True):
        content = (PARITY / f"google-{part}" / "weights.msgpack").read_bytes()
        (folder / file.name).write_bytes(content)
    # The reduced generator has 58 codes and classes, not 2,024; 18 of them fit the tokenizer.
    monkeypatch.setattr("maskgit_core.weights.families.transformers.SMALL_CLASSES", 18)
    with pytest.warns(UserWarning, match="taking 18 of 58"):
        loaded = load_checkpoint(fetch_weights("google-256"))
    assert type(loaded.transformer) is BertTransformer
    assert isinstance(loaded.transformer.config, BertConfig)
    assert not server.requests


def test_records_are_complete():
    assert len(KNOWN_WEIGHTS) == 10
    assert len({known.key for known in KNOWN_WEIGHTS.values()}) == 10
    for name, known in KNOWN_WEIGHTS.items():
        assert known.name == name
        assert str(known.image_size) in name
        assert bool(known.repo) != bool(known.source)
        assert all(isinstance(file, HubFile) for file in known.files)
    large = KNOWN_WEIGHTS["imagenet-384-large"]
    assert (large.fid, large.steps, large.guidance) == (2.59, 32, 1.5)
    assert large.download_megabytes > 2000
    assert hub.unknown_name("google").startswith("there are no weights named 'google'")


def test_imagenet_class_names():
    names = imagenet_classes()
    assert len(names) == len({name.casefold() for name in names}) == 1000
    anchors = {
        0: "tench",
        1: "goldfish",
        207: "golden retriever",
        281: "tabby",
        388: "giant panda",
        817: "sports car",
        934: "hot dog",
        963: "pizza",
        980: "volcano",
        999: "toilet tissue",
    }
    assert {label: names[label] for label in anchors} == anchors
    assert all(name == name.strip() and 1 < len(name) < 32 for name in names)
