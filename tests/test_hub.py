"""Weights by name, against a local server and with the Hub's real client between."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
from PIL import Image

from fake_hub import RUNNER, process_environment
from maskgit_core import MaskGIT
from maskgit_core.files import CheckpointError
from maskgit_core.hub_client import FetchError
from maskgit_core.weights.checkpoint import load_checkpoint
from maskgit_core.weights.hub import KNOWN_WEIGHTS, fetch_weights, resolve_checkpoint
from maskgit_core.weights.imagenet import imagenet_classes
from maskgit_core.weights.progress import Progress
from published import (
    TINY,
    TOKENIZER_KEY,
    TRANSFORMER_KEY,
    home,
    published_files,
    published_hub,
    transfers,
)
from waiting import wait_for


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with the published files, and a client that knows no other and an empty cache."""
    with published_hub(monkeypatch, tmp_path / "home") as running:
        yield running


@pytest.fixture(params=["Xet, shared store", "Xet, no shared store", "HTTP"])
def every_way(request, server, monkeypatch):
    """The server, and a client that fetches in each of the ways that it has."""
    monkeypatch.setattr(
        huggingface_hub.constants, "HF_HUB_DISABLE_SHARED_BLOBS", "no shared" in request.param
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", request.param == "HTTP")
    return server


def test_first_run_downloads_and_second_run_needs_no_connection(every_way, monkeypatch):
    server, progress = every_way, Progress()
    folder = fetch_weights("imagenet-256-tiny", progress=progress)
    loaded = load_checkpoint(folder)
    assert loaded.transformer.config.num_heads == 6
    assert loaded.tokenizer.config.image_size == 16
    assert loaded.sampling == TINY.sampling
    sizes = [len(server.files[key]) for key in (TOKENIZER_KEY, TRANSFORMER_KEY)]
    assert progress.done == progress.total == sum(sizes)
    assert progress.stage == "converting"
    first = len(server.requests)
    assert len(transfers(server, TINY.transformer.path)) == 1
    assert fetch_weights("imagenet-256-tiny") == folder
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve_checkpoint("imagenet-256-tiny") == folder
    assert len(server.requests) == first
    assert list(folder.parent.iterdir()) == [folder]
    # The files themselves are gone, and were nowhere where others would have found them.
    assert not (home() / "maskgit-downloads").exists()
    assert not list((home() / "hub").glob("models--*"))


def test_files_that_are_in_the_cache_already_are_used_and_stay(every_way, monkeypatch):
    paths = [
        Path(huggingface_hub.hf_hub_download(repo, path))
        for repo, path in (TOKENIZER_KEY, TRANSFORMER_KEY)
    ]
    asked = len(every_way.requests)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load_checkpoint(fetch_weights("imagenet-256-tiny"))
    assert len(every_way.requests) == asked
    assert all(path.is_file() for path in paths)


def test_another_version_in_the_cache_is_left_alone(server):
    other = b"an older version"
    server.files[TOKENIZER_KEY] = other
    path = Path(huggingface_hub.hf_hub_download(*TOKENIZER_KEY))
    server.files.update(published_files())
    commit = path.parent
    path = commit.rename(commit.with_name("0" * 40)) / path.name
    (commit.parent.parent / "refs" / "main").write_text(path.parent.name)
    load_checkpoint(fetch_weights("imagenet-256-tiny"))
    assert path.read_bytes() == other


def test_the_environment_rules_in_a_process_of_its_own(server, tmp_path):
    code = (
        "from maskgit_core.weights.hub import fetch_weights\n"
        "print(fetch_weights('imagenet-256-tiny'))"
    )
    (tmp_path / "fetch_here.py").write_text(code)
    environment = process_environment(server, tmp_path / "other")
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)

    def run(**extra: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, RUNNER, "fetch_here"],
            capture_output=True,
            text=True,
            env={**environment, **extra},
            timeout=300,
            check=False,
        )

    first = run()
    assert first.stdout.startswith(str(tmp_path / "other" / "maskgit")), first.stderr
    asked = len(server.requests)
    again = run(HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout, again.stderr
    assert len(server.requests) == asked


def test_offline_without_a_cache(server, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="not in the cache, and HF_HUB_OFFLINE forbids"):
        fetch_weights("imagenet-256-tiny")
    assert not server.requests


@pytest.mark.parametrize("xet", [True, False])
def test_a_connection_that_breaks_after_90_percent(server, monkeypatch, xet):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", not xet)
    server.cut[TINY.transformer.path] = [0.9]
    progress = Progress()
    load_checkpoint(fetch_weights("imagenet-256-tiny", progress=progress))
    assert len(transfers(server, TINY.transformer.path)) == 2
    assert progress.done == progress.total


@pytest.mark.parametrize("xet", [True, False])
def test_a_connection_that_always_breaks_leaves_what_is_whole(server, monkeypatch, xet):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", not xet)
    server.cut[TINY.transformer.path] = [0.9 if xet else 0.0] * 40
    with pytest.raises(FetchError, match="broke off; try again, it starts over") as error:
        fetch_weights("imagenet-256-tiny")
    assert error.value.reason == "broken"
    assert not (home() / "maskgit").exists()
    left = [path.name for path in (home() / "maskgit-downloads").rglob("*") if path.is_file()]
    assert TINY.tokenizer.name in left and not any("incomplete" in name for name in left)
    server.cut.clear()
    load_checkpoint(fetch_weights("imagenet-256-tiny"))
    assert len(transfers(server, TINY.tokenizer.path)) == 1


def test_content_of_another_hash_is_refused_and_fetched_anew(every_way):
    server = every_way
    content = bytearray(server.files[TOKENIZER_KEY])
    content[len(content) // 2] ^= 1
    server.swapped[TINY.tokenizer.path] = bytes(content)
    with pytest.raises(FetchError, match="vq_ds16_c2i.pt has the hash .*damaged.* try again"):
        fetch_weights("imagenet-256-tiny")
    server.swapped.clear()
    load_checkpoint(fetch_weights("imagenet-256-tiny"))


def test_a_file_without_a_hash_in_the_record_is_compared_with_what_the_hub_announced(every_way):
    assert not TINY.transformer.verified
    content = bytearray(every_way.files[TRANSFORMER_KEY])
    content[-100] ^= 1
    every_way.swapped[TINY.transformer.path] = bytes(content)
    with pytest.raises(FetchError, match="ImageNet_256_tiny.pth has the hash"):
        fetch_weights("imagenet-256-tiny")


def test_a_damaged_file_in_the_cache_is_not_used(server):
    path = Path(huggingface_hub.hf_hub_download(*TOKENIZER_KEY))
    shared = path.resolve()
    assert shared.parent.parent == home() / "hub" / "blobs"
    damage(shared)
    with pytest.raises(FetchError, match="it was damaged"):
        fetch_weights("imagenet-256-tiny")
    assert shared.is_file() and not path.exists()
    load_checkpoint(fetch_weights("imagenet-256-tiny"))


def test_a_version_that_is_not_the_one_in_the_record(server, monkeypatch):
    changed = replace(TINY, tokenizer=replace(TINY.tokenizer, sha256="0" * 64))
    monkeypatch.setitem(KNOWN_WEIGHTS, TINY.name, changed)
    with pytest.raises(FetchError, match="another version of it since 81e41139") as error:
        fetch_weights(TINY.name)
    assert error.value.reason == "changed"


def damage(path: Path) -> None:
    """Change a byte of a file and nothing of its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize("xet", [True, False])
def test_a_download_is_cancelled(server, monkeypatch, xet):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", not xet)
    progress, ends = Progress(), []
    server.held.clear()

    def work() -> None:
        try:
            fetch_weights("imagenet-256-tiny", progress=progress)
        except FetchError as error:
            ends.append(error.reason)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: transfers(server, TINY.tokenizer.path))
    progress.cancel()
    if not xet:
        server.held.set()  # the thread waits for bytes and cannot look up before they come
    thread.join(20)
    server.held.set()
    assert ends == ["cancelled"]
    assert not (home() / "maskgit").exists()
    load_checkpoint(fetch_weights("imagenet-256-tiny"))


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
    with pytest.raises(CheckpointError, match="c2i.pt .* there is no connection to the Hub"):
        fetch_weights("imagenet-256-tiny")
    assert not server.requests


@pytest.mark.parametrize("xet", [True, False])
def test_a_full_disk(server, monkeypatch, xet):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", not xet)
    module = huggingface_hub.file_download
    if xet:  # the native transfer writes to a device that is always full
        transfer = module.xet_get
        monkeypatch.setattr(
            module,
            "xet_get",
            lambda **how: transfer(**{**how, "incomplete_path": Path("/dev/full")}),
        )
    else:
        transfer = module.http_get

        def to_full_device(url: str, file: object, **how: object) -> None:
            with Path("/dev/full").open("wb", buffering=0) as full:
                transfer(url, full, **how)

        monkeypatch.setattr(module, "http_get", to_full_device)
    with pytest.raises(FetchError, match="no room on the disk for vq_ds16_c2i.pt") as error:
        fetch_weights("imagenet-256-tiny")
    assert error.value.reason == "no room"


def test_a_disk_that_is_too_small_is_told_before_the_download(server, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 10))
    with pytest.raises(FetchError, match="it needs 2 MB, 0 MB are free"):
        fetch_weights("imagenet-256-tiny")
    assert not transfers(server, TINY.tokenizer.path)


def test_a_conversion_that_fails_leaves_nothing_behind(server):
    server.files[TRANSFORMER_KEY] = server.files[TRANSFORMER_KEY][:5000]
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        fetch_weights("imagenet-256-tiny")
    assert list((home() / "maskgit").iterdir()) == []
    assert not (home() / "maskgit-downloads").exists()


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


def test_a_picture_in_one_go_from_a_fresh_cache(server, tmp_path):
    model = MaskGIT.from_pretrained("imagenet-256-tiny")
    assert model.generate([2], seed=1).images.shape == (1, 3, 16, 16)
    environment = process_environment(server, tmp_path / "other")
    words = ["sample", "--checkpoint", "imagenet-256-tiny", "--labels", "1", "--out", "one.png"]
    done = subprocess.run(
        [sys.executable, RUNNER, "maskgit_core", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "one.png").size == (16, 16)


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
