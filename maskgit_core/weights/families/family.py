"""What the published families have in common: how one is recognised and read from shapes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from maskgit_core.checks import check_range
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


def heads_for(width: int, num_heads: int | None, published: Mapping[int, int], inner: int) -> int:
    """Return the number of attention heads.

    Args:
        width: D.
        num_heads: what the caller asked for, if anything.
        published: width -> heads.
        inner: rows of the query projection, heads * (D // heads).

    Raises:
        ValueError: the number does not fit, or is neither given nor known.
    """
    heads = published.get(width) if num_heads is None else num_heads
    if heads is None or (num_heads is None and width // heads * heads != inner):
        raise ValueError(
            f"num_heads must be given for a transformer of width {width} with {inner} query rows; "
            f"it is known for the published widths {', '.join(map(str, published))} only"
        )
    check_range("num_heads", heads, 1, width, whole=True)
    if width // heads * heads != inner:
        raise ValueError(
            f"num_heads must split width {width} into {inner} query rows; got {heads}, which "
            f"makes {width // heads * heads}"
        )
    return heads


def renamed(tensors: Mapping[str, Tensor], family: Family, source: str) -> dict[str, Tensor]:
    """Return the tensors under the names that the family's rules know.

    Raises:
        CheckpointError: a tensor is there under both names.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        ours = rename(name, family.aliases)
        if ours in found:
            raise CheckpointError(f"{source} holds {ours} twice, under two names")
        found[ours] = tensor
    return found
