"""The registry of networks is the only place that knows their classes."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from maskgit_core.config import TRANSFORMER_KINDS, SamplingConfig, TransformerConfig
from maskgit_core.networks.registry import (
    TOKENIZERS,
    TRANSFORMERS,
    NetworkKind,
    build_transformer,
    kind_of,
    trains,
)
from maskgit_core.weights.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[1]
KINDS = {**TOKENIZERS, **TRANSFORMERS}
CLASSES = {kind.network.__name__ for kind in KINDS.values()}


@pytest.mark.parametrize("word", KINDS)
def test_a_kind_is_built_from_its_own_defaults(word):
    kind = KINDS[word]
    changes = {"kind": word} if "kind" in kind.config.__dataclass_fields__ else {}
    with torch.device("meta"):
        network = kind.network(kind.config(**changes))
    assert network.config == kind.config(**changes)
    assert kind_of(network, KINDS) == word
    assert trains(network) is kind.trains


def test_the_words_of_the_configuration_are_kinds():
    own = [word for word, kind in TRANSFORMERS.items() if kind.config is TransformerConfig]
    assert sorted(own) == sorted(TRANSFORMER_KINDS)
    for word in own:
        built = build_transformer(dataclasses.replace(tiny.TRANSFORMER, kind=word))
        assert kind_of(built, TRANSFORMERS) == word
        names = dict(built.named_parameters())
        for table in TRANSFORMERS[word].class_tables:
            first = table.first(built.config)
            assert names[table.name].shape[table.axis] - first == len(tiny.CLASSES) + 1


@dataclasses.dataclass(frozen=True)
class MeanConfig:
    codebook_size: int = 32
    num_classes: int = len(tiny.CLASSES)
    grid_size: int = 4


class Mean(nn.Module):
    """Logits of the class alone."""

    def __init__(self, config: MeanConfig) -> None:
        super().__init__()
        self.config, self.null_label = config, config.num_classes
        self.table = nn.Embedding(config.num_classes + 1, config.codebook_size)

    def forward(self, tokens, labels):
        return self.table(labels)[:, None].expand(-1, tokens.flatten(1).shape[1], -1)


def test_one_more_kind_is_one_entry(monkeypatch, tmp_path):
    from maskgit_core import MaskGIT

    monkeypatch.setitem(TRANSFORMERS, "mean", NetworkKind(MeanConfig, Mean))
    save_checkpoint(
        tmp_path, tokenizer=tiny.tokenizer(), transformer=Mean(MeanConfig()), classes=tiny.CLASSES
    )
    assert kind_of(load_checkpoint(tmp_path).transformer, TRANSFORMERS) == "mean"
    result = MaskGIT.from_pretrained(tmp_path).generate(["sea"], SamplingConfig(num_steps=3))
    assert result.images.shape == (1, 3, 16, 16)


def test_no_other_module_asks_what_class_a_network_is_of():
    asked = []
    for folder in ("maskgit_core", "demo"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "registry.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                calls = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
                compares = isinstance(node, ast.Compare) and "type(" in ast.unparse(node)
                if calls or compares:
                    words = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                    asked += [f"{path.name}: {ast.unparse(node)}"] if words & CLASSES else []
    assert not asked
