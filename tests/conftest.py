"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import tiny
from maskgit_core import MaskGIT
from maskgit_core.weights.checkpoint import save_checkpoint
from page_client import Site, served_site

# A test must not fail because the machine is busy, nor find in CI what nobody changed.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Tests draw the same numbers in every run, in whatever order they are run."""
    torch.manual_seed(0)


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Three classes of three photos."""
    return tiny.write_photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def tiny_model() -> MaskGIT:
    """A model with random weights; tests must not change it."""
    return tiny.model()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a checkpoint folder; tests must not change it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(
        folder,
        tokenizer=tiny.tokenizer(),
        transformer=tiny.transformer(),
        classes=list(tiny.CLASSES),
    )
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running page and what a stranger can send to it; its files are the module's own."""
    with served_site(tmp_path_factory.mktemp("gradio")) as running:
        yield running
