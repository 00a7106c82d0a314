"""The two files of imagenet-256-tiny as they are published, with one block and 64 codes; a hub."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from fake_hub import FakeHub, facts, running_hub, talk_to, xet_hash
from maskgit_core.config import TransformerConfig
from maskgit_core.networks.transformer import AdaLNMaskedTransformer
from maskgit_core.weights.families.transformers import halton_rule
from maskgit_core.weights.known import KNOWN_WEIGHTS
from maskgit_core.weights.rules import source_shapes
from with_fake_hub import pinned

PARITY = Path(__file__).parent / "fixtures" / "parity"
TINY = KNOWN_WEIGHTS["imagenet-256-tiny"]
TOKENIZER_KEY = (TINY.tokenizer.repo, TINY.tokenizer.path)
TRANSFORMER_KEY = (TINY.transformer.repo, TINY.transformer.path)
CONFIG = TransformerConfig(
    kind="adaln",
    codebook_size=64,
    num_classes=3,
    grid_size=4,
    width=384,
    depth=1,
    num_heads=6,
    mlp_width=256,
)


@cache
def published_files() -> dict[tuple[str, str], bytes]:
    """(repository, path) -> content, in the published nesting."""
    network = AdaLNMaskedTransformer(CONFIG)
    rules = {name: halton_rule(name, CONFIG) for name in network.state_dict()}
    random = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=random) * 0.02
        for name, shape in source_shapes(rules, network, 6).items()
    }
    weights["head.weight"] = weights["tok_emb.weight"]
    content = {"iter": 1, "global_epoch": 1, "model_state_dict": weights}
    file = io.BytesIO()
    torch.save({**content, "optimizer_state_dict": None}, file)
    return {
        TOKENIZER_KEY: (PARITY / "llamagen-vq" / "weights.pt").read_bytes(),
        TRANSFORMER_KEY: file.getvalue(),
    }


@contextlib.contextmanager
def published_hub(monkeypatch: pytest.MonkeyPatch, cache_home: Path) -> Iterator[FakeHub]:
    """A server with the files, and a client that knows no other and has an empty cache."""
    with running_hub() as running:
        running.files.update(published_files())
        talk_to(running, monkeypatch, cache_home)
        monkeypatch.setitem(KNOWN_WEIGHTS, TINY.name, pinned(TINY, facts(running)))
        yield running


def home() -> Path:
    """Folder of all that the client and we keep."""
    return Path(huggingface_hub.constants.HF_HOME)


def transfers(server: FakeHub, path: str) -> list[str]:
    """Requests for the content of a file, over either protocol."""
    (content,) = (content for (_, name), content in server.files.items() if name == path)
    ways = re.compile(rf"GET /(xorb/{xet_hash(content)}|content/.*{re.escape(path)})$")
    return [line for line in server.requests if ways.match(line)]
