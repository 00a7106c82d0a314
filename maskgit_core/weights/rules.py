"""Moving published tensors into our networks: which names, and how their shapes change.

A rule gives one of our tensors its published sources. Rules are also read backwards, from our
shapes to the shapes that a file must have, so that a file is checked in its own names before any
tensor is touched, on the meta device too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskgit_core.weights.checks import check_blocks, check_names, check_weight, to_float32

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """How one tensor is made.

    Attributes:
        sources: published names.
        change: key of CHANGES.
    """

    sources: tuple[str, ...]
    change: str = "copy"


# change -> (sources to our tensor, (our shape, number of sources, heads) to the sources' shape)
CHANGES: dict[str, tuple[Callable[[Sequence[Tensor]], Tensor], Callable[..., Shape]]] = {
    "copy": (lambda parts: parts[0], lambda shape, count, heads: shape),
    # several tensors one below the other
    "stack": (
        lambda parts: torch.cat(list(parts)),
        lambda shape, count, heads: (shape[0] // count, *shape[1:]),
    ),
    # a leading axis of one
    "batched": (lambda parts: parts[0][0], lambda shape, count, heads: (1, *shape)),
    # a 1x1 convolution that is a linear layer here
    "pointwise": (
        lambda parts: parts[0][:, :, 0, 0],
        lambda shape, count, heads: (*shape, 1, 1),
    ),
    # flax: a dense kernel is (in, out), a convolution (height, width, in, out)
    "dense": (lambda parts: parts[0].T, lambda shape, count, heads: shape[::-1]),
    "conv": (
        lambda parts: parts[0].permute(3, 2, 0, 1),
        lambda shape, count, heads: (*shape[2:], shape[1], shape[0]),
    ),
    # flax: attention kernels (D, heads, D / heads), their biases, and the way back
    "heads": (
        lambda parts: torch.cat([part.flatten(1).T for part in parts]),
        lambda shape, count, heads: (shape[1], heads, shape[0] // count // heads),
    ),
    "head_biases": (
        lambda parts: torch.cat([part.flatten() for part in parts]),
        lambda shape, count, heads: (heads, shape[0] // count // heads),
    ),
    "from_heads": (
        lambda parts: parts[0].flatten(0, 1).T,
        lambda shape, count, heads: (heads, shape[1] // heads, shape[0]),
    ),
}


def source_shapes(rules: Mapping[str, Rule], network: nn.Module, heads: int) -> dict[str, Shape]:
    """Return published name -> shape that the network needs."""
    wanted: dict[str, Shape] = {}
    for name, tensor in network.state_dict().items():
        rule = rules[name]
        shape_of = CHANGES[rule.change][1]
        for source in rule.sources:
            wanted[source] = shape_of(tuple(tensor.shape), len(rule.sources), heads)
    return wanted


def transfer(
    network_class: type[nn.Module],
    config: Any,
    rule_for: Callable[[str], Rule],
    tensors: Mapping[str, Tensor],
    source: str,
) -> nn.Module:
    """Build a network from published tensors, float32 and in evaluation mode.

    Args:
        network_class, config: the network to build; `num_heads` of the configuration, where it
            has one, is the number of attention heads.
        rule_for: our name -> rule.
        tensors: published name -> tensor, all of them used.
        source: name of the file, for messages.

    Raises:
        CheckpointError: listing missing, unexpected and misshapen names, as the file spells them;
            or naming a tensor that is not of finite floats.
    """
    check_blocks(config, len(tensors), source)
    with torch.device("meta"):
        network = network_class(config)
    rules = {name: rule_for(name) for name in network.state_dict()}
    wanted = source_shapes(rules, network, getattr(config, "num_heads", 1))
    check_names(wanted, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)
    state, learned = {}, {name for name, _ in network.named_parameters()}
    for name, rule in rules.items():
        for part in rule.sources if name in learned else ():
            check_weight(part, tensors[part], source)
        parts = [to_float32(tensors[source]) for source in rule.sources]
        made = CHANGES[rule.change][0](parts).contiguous()
        # A copy, so that the network neither shares memory with the file nor keeps it open.
        state[name] = made.clone() if any(made.data_ptr() == p.data_ptr() for p in parts) else made
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()
