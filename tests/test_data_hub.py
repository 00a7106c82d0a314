"""A dataset on the Hub as a source of photos, with the Hub's real client and a local server."""

from __future__ import annotations

import io

import huggingface_hub.constants
import numpy as np
import pytest

import tiny
from commands import assert_refused, steps, train_tokenizer
from fake_hub import FakeHub, running_hub, talk_to
from maskgit_core.data.hub import fetch_dataset
from maskgit_core.files import CheckpointError
from maskgit_core.weights.checkpoint import load_checkpoint

NAME = "someone/photos"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A dataset of two classes with held-out photos, beside files that training has no use for."""
    with running_hub() as running:
        train = ("train/land/1.png", "train/land/2.PNG", "train/sea/1.png", "train/sea/2.png")
        for index, place in enumerate((*train, "validation/land/1.png", "validation/sea/1.png")):
            content = io.BytesIO()
            tiny.picture(index).save(content, "PNG")
            running.files[NAME, place] = content.getvalue()
        running.files[NAME, "README.md"] = b"# Photos"
        running.files["someone/tables", "data/train.parquet"] = b"PAR1"
        talk_to(running, monkeypatch, tmp_path / "home")
        yield running


def downloads(hub: FakeHub) -> list[str]:
    return [line for line in hub.requests if line.startswith("GET") and "/api/" not in line]


def test_a_dataset_is_trained_on_and_fetched_once(hub, monkeypatch, tmp_path):
    assert train_tokenizer(f"hub:{NAME}", tmp_path / "out") == 0
    assert load_checkpoint(tmp_path / "out" / "checkpoint").classes == ["land", "sea"]
    sizes = [np.load(path, mmap_mode="r").shape[0] for path in (tmp_path / "out").glob("*.npy")]
    assert sorted(sizes) == [2, 4]
    fetched = downloads(hub)
    assert any("2.PNG" in line for line in hub.requests)
    assert not any("README" in line for line in fetched)
    fetch_dataset(f"hub:{NAME}")
    assert downloads(hub) == fetched
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert train_tokenizer(f"hub:{NAME}", tmp_path / "out", "--max-steps", 8) == 0
    assert steps(tmp_path / "out")[-1] == 8
    assert len(hub.requests) == asked


def test_what_cannot_be_fetched_is_told_in_one_line(capsys, hub, monkeypatch, tmp_path):
    def refused(name: str, says: str) -> None:
        command = ["train", "--data", name, "--out", tmp_path / "out"]
        assert_refused(capsys, *command, says=says)

    refused("hub:photos", "data must be a folder or hub:owner/name; got 'hub:photos'")
    refused("hub:nobody/nothing", "there is no Hub repository nobody/nothing (404)")
    refused(f"hub:{NAME}@old", f"the Hub repository {NAME} has no revision old (404)")
    with pytest.raises(ValueError, match="the dataset someone/tables has no files of the kinds .j"):
        fetch_dataset("hub:someone/tables")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE forbids"):
        fetch_dataset("hub:someone/more")
