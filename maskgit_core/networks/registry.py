"""The kinds of networks: one entry each, by the word that a checkpoint's config.json has for it.

One more kind is one entry in `TOKENIZERS` or `TRANSFORMERS`; nothing else asks what class a
network is of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from maskgit_core.config import TokenizerConfig, TransformerConfig
from maskgit_core.networks.bert import BertConfig, BertTransformer
from maskgit_core.networks.maskbit import MaskBitConfig, MaskBitTransformer
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.transformer import AdaLNMaskedTransformer, MaskedTransformer
from maskgit_core.networks.vqgan import VQGAN, VQGANConfig


@dataclass(frozen=True)
class ClassTable:
    """Where a network keeps what it knows of each class, the null class last.

    Attributes:
        name: of the parameter.
        first: configuration to the place of class 0.
        axis: along which the classes lie.
        learned: whether a new class starts a little apart from the null class.
    """

    name: str
    first: Callable[[Any], int] = lambda config: 0
    axis: int = 0
    learned: bool = True


@dataclass(frozen=True)
class NetworkKind:
    """A kind of network.

    Attributes:
        config: its settings, a frozen dataclass whose defaults are its own.
        network: its class, built from the settings alone, which it keeps as `config`.
        trains: whether the training commands make it and go on from it.
        class_tables: of a transformer that trains.
    """

    config: type
    network: type[nn.Module]
    trains: bool = False
    class_tables: tuple[ClassTable, ...] = ()


TOKENIZERS: dict[str, NetworkKind] = {
    "conv_vq": NetworkKind(TokenizerConfig, VQTokenizer, trains=True),
    "vqgan": NetworkKind(VQGANConfig, VQGAN),
}
TRANSFORMERS: dict[str, NetworkKind] = {
    "class_token": NetworkKind(
        TransformerConfig,
        MaskedTransformer,
        trains=True,
        class_tables=(
            ClassTable("embedding.weight", lambda config: config.codebook_size + 1),
            ClassTable("bias", lambda config: config.codebook_size + 1, axis=1, learned=False),
        ),
    ),
    "adaln": NetworkKind(
        TransformerConfig,
        AdaLNMaskedTransformer,
        trains=True,
        class_tables=(ClassTable("class_embedding.weight"),),
    ),
    "bert": NetworkKind(BertConfig, BertTransformer),
    "maskbit": NetworkKind(MaskBitConfig, MaskBitTransformer),
}


def kind_of(network: nn.Module, kinds: Mapping[str, NetworkKind]) -> str:
    """Return the word for the kind of a network.

    Raises:
        ValueError: a network that is in neither table.
    """
    for word, kind in kinds.items():
        if type(network) is kind.network:
            return word
    raise ValueError(f"no kind is a {type(network).__name__}; known kinds: {', '.join(kinds)}")


def trains(network: nn.Module) -> bool:
    """Whether the training commands can go on from a network."""
    kinds = (*TOKENIZERS.values(), *TRANSFORMERS.values())
    return any(kind.trains for kind in kinds if type(network) is kind.network)


def trained_words(kinds: Mapping[str, NetworkKind]) -> str:
    """Return the words of the kinds that the training commands make, for messages."""
    return ", ".join(word for word, kind in kinds.items() if kind.trains)


def build_transformer(config: TransformerConfig) -> nn.Module:
    """Return the network that `config.kind` names, with random weights."""
    return TRANSFORMERS[config.kind].network(config)
