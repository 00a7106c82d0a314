"""What a published transformer says of itself, where its names and shapes do not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from maskgit_core.config import check_range
from maskgit_core.files import CheckpointError
from maskgit_core.weights.formats import WeightFile

IMAGENET_CLASSES = 1000
PUBLISHED_CODES = 1024


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


def split_rows(rows: int, extra: int, num_classes: int | None) -> tuple[int, int]:
    """Split the rows of a table that holds codes and classes; returns (codes, classes).

    Only the sum can be read from a file. Without num_classes it must be that of the published
    files, 1,024 codes and 1,000 classes.

    Args:
        rows: all rows.
        extra: rows that are neither a code nor a class.
        num_classes: what the caller knows, if anything.

    Raises:
        ValueError: num_classes leaves fewer than two codes.
        CheckpointError: it is not given, and nothing shows it.
    """
    both = rows - extra
    if num_classes is None:
        if both != PUBLISHED_CODES + IMAGENET_CLASSES:
            raise CheckpointError(
                f"the weights have {both} codes and classes together and do not say how many of "
                "each; give the number of classes: --num-classes (num_classes in Python)"
            )
        num_classes = IMAGENET_CLASSES
    check_range("num_classes", num_classes, 1, max(1, both - 2), whole=True)
    return both - num_classes, num_classes


def check_tied(file: WeightFile) -> None:
    """Check that the output layer of a Halton-MaskGIT file is its token table.

    Raises:
        CheckpointError: the two differ.
    """
    head, table = file.tensors.get("head.weight"), file.tensors.get("tok_emb.weight")
    if head is None or table is None or head.is_meta:
        return
    if head.data_ptr() != table.data_ptr() and not torch.equal(head, table):
        raise CheckpointError(
            f"{file.name} has an output layer that differs from its token table; published files "
            "share one tensor"
        )


def classes_from_training(file: WeightFile) -> int | None:
    """Find the number of classes of a v1.0 file from what training never touched.

    The token table has codes, mask, classes and null class in its rows, and the loss covers codes
    and mask alone. So the output bias of the classes stays at its initial zero, and so does the
    optimizer's mean of its gradient.

    Returns:
        The number of classes, or None where nothing shows it.
    """
    bias = file.tensors.get("bias")
    if bias is None or bias.dim() != 2 or bias.is_meta:
        return None
    rows = bias.shape[1]
    optimizer = file.beside.get("optimizer_state_dict") or {}
    states = optimizer.get("state", {}) if isinstance(optimizer, Mapping) else {}
    moments = [
        state["exp_avg"]
        for state in (states.values() if isinstance(states, Mapping) else ())
        if isinstance(state, Mapping)
        and isinstance(state.get("exp_avg"), Tensor)
        and state["exp_avg"].shape == bias.shape
    ]
    for evidence in (bias, *moments):
        touched = evidence.ne(0).any(0).nonzero()
        # The last column that was touched is the mask's, at K.
        if len(touched) and 2 <= int(touched[-1]) < rows - 2:
            return rows - int(touched[-1]) - 2
    return None
