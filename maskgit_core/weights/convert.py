"""Published weights to our networks.

The family of a file follows from the names in it, the configuration from the shapes, and every
tensor must find its place: `families` holds the
names, `rules` moves the tensors, `formats` reads the files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskgit_core.config import SamplingConfig
from maskgit_core.files import CheckpointError
from maskgit_core.weights.checkpoint import MAX_CONFIG, save_checkpoint
from maskgit_core.weights.families.family import Family, renamed
from maskgit_core.weights.families.table import FAMILIES, published_sampling
from maskgit_core.weights.families.tokenizers import published_settings
from maskgit_core.weights.families.transformers import HALTON, V1
from maskgit_core.weights.formats import WeightFile, read_weights
from maskgit_core.weights.imagenet import IMAGENET_CLASSES, imagenet_classes
from maskgit_core.weights.rules import transfer

OUR_NAMES = re.compile(r"(blocks|layers)\.\d+\.attention\.qkv\.|quantizer\.codebook$")


def recognise(names: Iterable[str], part: str, source: str) -> Family:
    """Return the family of a file with these tensor names.

    Args:
        names: of all tensors.
        part: `transformer` or `tokenizer`, what the file is wanted for.
        source: name of the file, for messages.

    Raises:
        CheckpointError: no known family, or one of the other part.
    """
    names = list(names)
    if any(OUR_NAMES.match(name) for name in names):
        raise CheckpointError(
            f"{source} is already in this project's own form; load the folder that it is in"
        )
    family = next((family for family in FAMILIES if family.matches(names)), None)
    if family is None:
        titles = ", ".join(family.title for family in FAMILIES if family.part == part)
        examples = ", ".join(sorted(names)[:3])
        raise CheckpointError(
            f"{source} is of no known family ({titles}); it holds names such as {examples}"
        )
    if family.part != part:
        raise CheckpointError(
            f"{source} holds a {family.part} ({family.title}); a {part} is wanted here"
        )
    return family


def build(
    file: WeightFile, part: str, configure: Callable[[Family, Mapping[str, Any]], Any]
) -> nn.Module:
    """Recognise a file, read the configuration and move the tensors.

    Args:
        configure: (family, shapes) to the configuration.

    Raises:
        CheckpointError: see `convert_transformer`.
    """
    family = recognise(file.tensors, part, file.name)
    tensors = {name: t for name, t in file.tensors.items() if not re.match(family.ignored, name)}
    if family is HALTON:
        check_tied(file)
    if family.aliases:
        tensors = renamed(tensors, family, file.name)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    config = configure(family, {**file.shapes, **shapes})
    return transfer(
        family.network, config, lambda name: family.rule_for(name, config), tensors, file.name
    )


def transformer_from(
    file: WeightFile, *, num_heads: int | None = None, num_classes: int | None = None
) -> nn.Module:
    """Build a transformer from tensors; see `convert_transformer`."""

    def configure(family: Family, shapes: Mapping[str, Any]) -> Any:
        classes = num_classes
        if family is V1 and classes is None:
            classes = classes_from_training(file)
        return family.configure(shapes, num_heads, classes)

    return build(file, "transformer", configure)


def tokenizer_from(file: WeightFile, *, config: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a tokenizer from tensors; see `convert_tokenizer`."""
    return build(file, "tokenizer", lambda family, shapes: family.configure(shapes, config or {}))


def convert_transformer(
    path: str | os.PathLike[str],
    *,
    num_heads: int | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """Load a published transformer.

    Args:
        path: a file of the v1.0 PyTorch reproduction, of Halton-MaskGIT, or of the original
            MaskGIT (flax msgpack); the family is recognised from the content.
        num_heads: attention heads, needed for the PyTorch families where the width is none of
            the published ones.
        num_classes: classes, for the v1.0 and original files with another number than 1,000:
            they keep codes and classes in one table.

    Returns:
        A network in evaluation mode that maps (tokens int64 (B, N) or (B, h, w), labels int64
        (B,)) to float32 logits (B, N, K) over the real codes.

    Raises:
        ValueError: num_heads is missing or does not fit, or num_classes does not fit.
        CheckpointError: the file is damaged, of no known family, a tokenizer, tries to run code,
            or has missing, unexpected or misshapen tensors.
    """
    return transformer_from(read_weights(path), num_heads=num_heads, num_classes=num_classes)


def convert_tokenizer(
    path: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> nn.Module:
    """Load a published tokenizer.

    Args:
        path: a file of taming-transformers, LlamaGen, open-muse, or the original MaskGIT (flax
            msgpack); the family is recognised from the content.
        config: the published configuration, as a YAML or JSON file or as a dict, for what shapes
            do not say: the image size (else 256) and whether codes are of unit length.

    Returns:
        A network in evaluation mode with `encode_to_tokens` and `decode_tokens`; images are in
        [-1, 1] whatever the published network used.

    Raises:
        CheckpointError: as in `convert_transformer`, or the configuration contradicts the shapes.
    """
    return tokenizer_from(read_weights(path), config=read_settings(config))


def read_settings(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a configuration that may be a file.

    Raises:
        CheckpointError: the file cannot be read or holds no settings.
    """
    if config is None or isinstance(config, Mapping):
        return config or {}
    path = Path(config)
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError("it is longer than any configuration")
        text = path.read_text(encoding="utf-8")
        try:
            values = json.loads(text)
        except ValueError:
            import yaml

            values = yaml.safe_load(text)
    except Exception as error:  # the file system, the encoding and the YAML parser
        raise CheckpointError(f"the configuration {path} cannot be read: {error}") from error
    if not isinstance(values, Mapping):
        raise CheckpointError(f"the configuration {path} holds no settings")
    return values


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


def convert_pair(
    tokenizer_path: str | os.PathLike[str],
    transformer_path: str | os.PathLike[str],
    *,
    num_heads: int | None = None,
    num_classes: int | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> tuple[nn.Module, nn.Module]:
    """Load a published tokenizer and transformer that belong together.

    `advance` is called when each of the two is loaded.

    The tokenizer's image size is the one that the transformer's grid needs, unless the
    configuration says one.

    Raises:
        ValueError, CheckpointError: as in the single conversions, or the two differ in their
            codebook or grid size.
    """
    settings = read_settings(config)
    tokenizer = tokenizer_from(read_weights(tokenizer_path), config=settings)
    advance()
    transformer = convert_transformer(
        transformer_path, num_heads=num_heads, num_classes=num_classes
    )
    advance()
    codes, wanted = tokenizer.config.codebook_size, transformer.config.codebook_size
    if codes != wanted:
        raise CheckpointError(
            f"the tokenizer has a codebook of {codes}, the transformer of {wanted}; "
            "they must be equal"
        )
    size = transformer.config.grid_size * tokenizer.config.patch_stride
    if "image_size" in published_settings(settings) and tokenizer.config.image_size != size:
        raise CheckpointError(
            f"the tokenizer makes a grid of {tokenizer.config.grid_size} tokens a side at the "
            f"configured image size, the transformer has {transformer.config.grid_size}; they "
            "must be equal, and without a configuration the transformer's grid is taken"
        )
    tokenizer.config = dataclasses.replace(tokenizer.config, image_size=size)
    return tokenizer, transformer


def class_names(num_classes: int) -> list[str]:
    """Return ImageNet's names for 1,000 classes, else numbered ones."""
    if num_classes == IMAGENET_CLASSES:
        return imagenet_classes()
    return [f"class {label}" for label in range(num_classes)]


def convert_checkpoint(
    tokenizer_path: str | os.PathLike[str],
    transformer_path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    num_heads: int | None = None,
    num_classes: int | None = None,
    tokenizer_config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    classes_file: str | os.PathLike[str] | None = None,
    sampling: SamplingConfig | None = None,
    dtype: torch.dtype = torch.float32,
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Write a published tokenizer and transformer as a checkpoint folder of ours.

    Args:
        tokenizer_path, transformer_path: published files, see the single conversions.
        folder: made where it does not exist.
        num_heads, num_classes, tokenizer_config: see the single conversions.
        classes_file: text file with one class name a line; ImageNet's names for 1,000 classes
            and numbers for others by default.
        sampling: default decoding settings; those of the authors for networks of this size and
            resolution by default. Their other settings are kept as presets.
        dtype: of the stored weights, float32 or float16.
        advance: called when each of the three parts of the work is done.

    Raises:
        ValueError: as in the conversions, or another number of class names than classes.
        CheckpointError: as in the conversions, or a file cannot be read or written.
    """
    classes = None if classes_file is None else read_class_names(Path(classes_file))
    tokenizer, transformer = convert_pair(
        tokenizer_path,
        transformer_path,
        num_heads=num_heads,
        num_classes=num_classes,
        config=tokenizer_config,
        advance=advance,
    )
    published = published_sampling(transformer)
    save_checkpoint(
        folder,
        tokenizer=tokenizer,
        transformer=transformer,
        classes=classes or class_names(transformer.config.num_classes),
        sampling=sampling or published.usual,
        presets=published.presets,
        dtype=dtype,
    )
    advance()


def read_class_names(path: Path) -> list[str]:
    """Return the lines of a text file; blank ones are left out.

    Raises:
        CheckpointError: the file cannot be read or names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise CheckpointError(f"the class names in {path} cannot be read: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise CheckpointError(f"{path} names no class")
    return names
