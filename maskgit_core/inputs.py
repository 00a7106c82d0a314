"""What callers of the facade write: classes, seeds, names of models."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskgit_core.class_names import find_class, normal_name
from maskgit_core.config import MAX_SEED, check_range
from maskgit_core.recipes import NO_CLASS

Label = str | int | None
NAMES_SHOWN = 12  # in a message
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_tensor(name: str, value: object) -> None:
    """Raise ValueError naming the argument unless value is a tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor; got {type(value).__name__}")


def check_images(images: object, stride: int) -> None:
    """Raise ValueError unless images are a float tensor (B, 3, H, W) with sides that fit.

    Args:
        images: what was given.
        stride: pixels a side of a token; the sides must be multiples of it.
    """
    check_tensor("images", images)
    assert isinstance(images, Tensor)
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"images must be float32 (B, 3, H, W); got {images.dtype} {shape}")
    if shape[2] % stride or shape[3] % stride or 0 in shape:
        raise ValueError(f"images must have sides that are multiples of {stride}; got {shape}")


def check_tokens(tokens: object, highest: int) -> None:
    """Raise ValueError unless tokens are an int64 tensor (B, h, w) in 0..highest."""
    check_tensor("tokens", tokens)
    assert isinstance(tokens, Tensor)
    if tokens.dtype != torch.int64 or tokens.ndim != 3 or 0 in tokens.shape:
        raise ValueError(
            f"tokens must be int64 (B, h, w); got {tokens.dtype} {tuple(tokens.shape)}"
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high > highest:
        raise ValueError(f"tokens must be in 0..{highest}; got {low}..{high}")


def _plain_number(value: Any) -> Any:
    """Return whole numbers of numpy and torch as Python's, all else as it is."""
    whole = isinstance(value, Tensor) and value.ndim == 0 and value.dtype in WHOLE
    return int(value) if whole or isinstance(value, np.integer) else value


def resolve_label(label: Label, classes: Sequence[str], null_label: int | None) -> int:
    """Return the label of a class given by name (see `class_names`) or number; None is "no class".

    Args:
        label: a name of `classes`, a number in [0, len(classes)), also as text, or None, also as
            the text "none"; a class of such a name comes first.
        classes: name of each label.
        null_label: what None stands for; None where the network has no such class.

    Raises:
        ValueError: a name or number that is unknown, a name that could be two classes, or None
            where the network has no null class.
    """
    if label is None:
        if null_label is None:
            raise ValueError("label must name a class: this model cannot do without")
        return null_label
    if isinstance(label, str):
        try:
            place = find_class(label, classes)
        except ValueError as error:
            raise ValueError(f"label must name one class; {error}") from None
        if place is not None:
            return place
        if normal_name(label).casefold() == NO_CLASS:
            return resolve_label(None, classes, null_label)
        if re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", label):
            return resolve_label(int(label), classes, null_label)
        some = ", ".join(classes[:NAMES_SHOWN]) + (", ..." if len(classes) > NAMES_SHOWN else "")
        raise ValueError(f"label must be one of {some}; got {label!r}")
    number = _plain_number(label)
    check_range("label", number, 0, len(classes) - 1, whole=True)
    return number


def image_seeds(seed: int | Sequence[int], count: int) -> list[int]:
    """Return one seed an image: seed + i, or seed i of a list.

    Args:
        seed: whole numbers in [0, 2**63), that of the last image too.
        count: images.

    Raises:
        ValueError: no whole number, out of range, or a list of another length.
    """
    if isinstance(seed, list | tuple):
        if len(seed) != count:
            raise ValueError(f"seed must hold one seed for each of {count} images; got {seed}")
        return [image_seeds(one, 1)[0] for one in seed]
    first = _plain_number(seed)
    check_range("seed", first, 0, MAX_SEED + 1 - count, whole=True)
    return [first + i for i in range(count)]


def folder_name(source: str | os.PathLike[str]) -> str:
    """Return the last part of a path or of owner/name; `.` and `..` are followed.

    The folder `checkpoint` of a training run goes by the name of the run.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        path = path.resolve()
        path = path.parent if path.name == "checkpoint" and path.parent.name else path
    return path.name or "model"
