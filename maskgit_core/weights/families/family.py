"""What the published families have in common: how one is recognised and read from shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from maskgit_core.files import CheckpointError
from maskgit_core.weights.families.sampling import PublishedSampling
from maskgit_core.weights.rules import Rule, Shape

T = TypeVar("T")


@dataclass(frozen=True)
class Family:
    """A published kind of weights.

    Attributes:
        title: for messages.
        part: `transformer` or `tokenizer`.
        marks: patterns; a file with a name that one of them matches from its start is of this
            family.
        network: our class.
        configure: (shapes, options) to our configuration.
        rule_for: (our name, configuration) to the rule that makes the tensor.
        ignored: pattern of names that are no part of the network.
        aliases: (pattern, replacement) for tensors that some files have under another name.
        sampling: our configuration to the authors' settings (transformers).
    """

    title: str
    part: str
    marks: tuple[str, ...]
    network: type[nn.Module]
    configure: Callable[..., Any]
    rule_for: Callable[[str, Any], Rule]
    ignored: str = r"$^"
    aliases: tuple[tuple[str, str], ...] = ()
    sampling: Callable[[Any], PublishedSampling] | None = None

    def matches(self, names: Iterable[str]) -> bool:
        """Whether a file with these names is of this family."""
        names = list(names)
        return any(re.match(mark, name) for mark in self.marks for name in names)


def shape_of(shapes: Mapping[str, Shape], name: str, length: int) -> Shape:
    """Return a shape that the configuration is read from.

    Raises:
        CheckpointError: the name is missing, or its shape has another number of axes.
    """
    if name not in shapes:
        raise CheckpointError(f"the weights cannot be used; 1 missing: {name}")
    if len(shapes[name]) != length:
        raise CheckpointError(
            f"the weights cannot be used; 1 misshapen: {name} is {shapes[name]}, "
            f"not of {length} axes"
        )
    return shapes[name]


def count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """Return one more than the largest number that the group of the pattern matches, or 0."""
    found = (re.match(pattern, name) for name in shapes)
    return max((int(match[1]) for match in found if match), default=-1) + 1


def side_of(cells: int, name: str) -> int:
    """Return the side of a square grid.

    Raises:
        CheckpointError: the number of cells is no square.
    """
    side = round(cells**0.5)
    if side**2 != cells:
        raise CheckpointError(f"{name} is for {cells} tokens, which is not a square grid")
    return side


def configured(config_class: type[T], **values: Any) -> T:
    """Build a configuration.

    Raises:
        CheckpointError: the shapes lead to settings that the network does not have.
    """
    try:
        return config_class(**values)
    except ValueError as error:
        raise CheckpointError(f"the shapes of the weights are not supported: {error}") from error


def rename(name: str, table: Iterable[tuple[str, str]]) -> str:
    """Apply every (pattern, replacement) in turn to one of our names."""
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name
