"""Fixtures that several test files share."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import register_random, settings
from torch import Tensor

import tiny
from browser_page import browser, page, page_url
from maskgit_core import MaskGIT
from maskgit_core.weights.checkpoint import save_checkpoint
from page_client import Site, served_site

__all__ = ["browser", "page", "page_url"]  # fixtures

# A test must not fail because the machine is busy, nor find in CI what nobody changed.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")


class TorchRandom:
    """PyTorch's global random numbers, as Hypothesis wants them: the same for each example."""

    def seed(self, seed: int) -> None:
        """Start again from a seed."""
        torch.manual_seed(seed)

    def getstate(self) -> Tensor:
        """Return the state, to be put back."""
        return torch.get_rng_state()

    def setstate(self, state: Tensor) -> None:
        """Put a state back."""
        torch.set_rng_state(state)


TORCH_RANDOM = TorchRandom()  # Hypothesis keeps no reference
register_random(TORCH_RANDOM)


@pytest.fixture(autouse=True)
def same_draws_each_time() -> None:
    """No test depends on the draws of those before it, nor differs from run to run."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


BROWSER = re.compile(r"tests/test_page_(?!api)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n 2`, run a file in one process, and all that drive a browser in the same."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "browser" if BROWSER.match(nodeid) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return ByFile(config, log)


# Files that start processes and servers of their own, several seconds a test.
SLOW = (
    "cli_training distributed packaging published_in_one_go serving signals startup strangers"
).split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow; the tests with a browser take longest and begin first."""
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker(pytest.mark.slow)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not BROWSER.match(item.nodeid))


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


@pytest.fixture
def gated() -> MaskGIT:
    """A small model that takes a step only when it is let."""
    from gated_runs import gated_model

    return gated_model()
