"""Checkpoints: a folder with safetensors weights and a readable config.json beside them.

    config.json              format, kinds and configurations of the networks, class names, defaults
    tokenizer.safetensors    weights of the tokenizer
    transformer.safetensors  weights of the masked transformer

Loading is strict: every name and shape must fit, and nothing is ever filled with random weights.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from maskgit_core.config import SamplingConfig, from_dict, to_dict
from maskgit_core.files import CheckpointError, Writer, write_all_atomically
from maskgit_core.networks.registry import TOKENIZERS, TRANSFORMERS, NetworkKind, kind_of
from maskgit_core.weights.checks import (
    check_blocks,
    check_floats,
    check_header,
    check_names,
    to_float32,
)

FORMAT = 1
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.safetensors"
TRANSFORMER_FILE = "transformer.safetensors"
MAX_CONFIG = 1 << 22  # bytes of config.json, which names 1,000 classes in some ten thousand
PARTS = ("format", "tokenizer", "transformer", "classes", "sampling", "presets")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        tokenizer: in evaluation mode.
        transformer: in evaluation mode; None where only a tokenizer was saved.
        classes: name of each label.
        sampling: the settings to decode with by default.
        presets: other settings that suit it, by name.
    """

    tokenizer: nn.Module
    transformer: nn.Module | None
    classes: list[str]
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    presets: dict[str, SamplingConfig] = field(default_factory=dict)


def _weights_writer(module: nn.Module, dtype: torch.dtype) -> Writer:
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in module.state_dict().items()
    }
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float16 and not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{name} has values that 16-bit floats cannot hold")
    return lambda temporary: save_file(tensors, temporary)


def load_weights(module_class: type[nn.Module], config: Any, path: Path) -> nn.Module:
    """Build a network on the meta device and give it the tensors of a safetensors file.

    Weights are float32 in memory whatever the file holds.

    Raises:
        CheckpointError: the file is missing, cut short, or its names or shapes do not fit.
    """
    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            check_blocks(config, len(found), path.name)
            try:
                with torch.device("meta"):
                    module = module_class(config)
            except (ValueError, TypeError, RuntimeError, OverflowError) as error:
                raise CheckpointError(
                    f"no network can be built for {path.name}: {error}"
                ) from error
            wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
            check_names(wanted, found, path.name)
            tensors = {name: to_float32(file.get_tensor(name)) for name in wanted}
        check_floats(module, tensors, path.name)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name} is missing in {path.parent}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged or cut short: {error}") from error
    module.load_state_dict(tensors, strict=True, assign=True)
    return module.eval()


def save_checkpoint(
    folder: str | os.PathLike[str],
    *,
    tokenizer: nn.Module,
    transformer: nn.Module | None = None,
    classes: list[str] | None = None,
    sampling: SamplingConfig | None = None,
    presets: Mapping[str, SamplingConfig] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint folder; files are moved into place when all are written.

    Args:
        folder: made where it does not exist.
        tokenizer, transformer: networks of a known kind.
        classes: one name a label.
        sampling: default decoding settings.
        presets: other settings, by name.
        dtype: of the stored weights, float32 or float16.

    Raises:
        ValueError: a network of an unknown kind, or classes that do not fit the transformer.
        CheckpointError: the disk is full or not writable, or float16 cannot hold a weight.
    """
    folder = Path(folder)
    classes = list(classes or [])
    config: dict[str, Any] = {
        "format": FORMAT,
        "tokenizer": {"kind": kind_of(tokenizer, TOKENIZERS), **to_dict(tokenizer.config)},
    }
    if transformer is not None:
        if transformer.config.num_classes != len(classes):
            raise ValueError(
                f"classes must hold {transformer.config.num_classes} names; got {len(classes)}"
            )
        config["transformer"] = {
            **to_dict(transformer.config),
            "kind": kind_of(transformer, TRANSFORMERS),
        }
    config["classes"] = classes
    config["sampling"] = to_dict(sampling or SamplingConfig())
    if presets:
        config["presets"] = {name: to_dict(preset) for name, preset in presets.items()}
    writers: dict[Path, Writer] = {folder / TOKENIZER_FILE: _weights_writer(tokenizer, dtype)}
    if transformer is not None:
        writers[folder / TRANSFORMER_FILE] = _weights_writer(transformer, dtype)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    writers[folder / CONFIG_FILE] = lambda path: Path(path).write_text(text, encoding="utf-8")
    write_all_atomically(writers)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        CheckpointError: it is missing, no JSON, of a newer format, or has an unknown entry.
    """
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise CheckpointError(f"there is no checkpoint folder {folder}")
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError("it is longer than any configuration")
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{CONFIG_FILE} is missing in {folder}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{CONFIG_FILE} in {folder} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        got = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CheckpointError(f"{CONFIG_FILE} has format {got!r}; this version reads {FORMAT}")
    for key in config:
        if key not in PARTS:
            near = difflib.get_close_matches(key, PARTS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise CheckpointError(f"unknown entry {key!r} in {CONFIG_FILE}{hint}")
    return config


def parse_network(
    config: Mapping[str, Any], part: str, kinds: Mapping[str, NetworkKind]
) -> tuple[Any, type[nn.Module]]:
    """Return (configuration, network class) of one part of config.json.

    Raises:
        CheckpointError: an unknown kind or a setting that is unknown or out of range.
    """
    values = config.get(part)
    kind = values.get("kind") if isinstance(values, dict) else values
    if not isinstance(values, dict) or kind not in list(kinds):
        raise CheckpointError(f"{part} kind must be one of {', '.join(kinds)}; got {kind!r}")
    config_class, module_class = kinds[kind].config, kinds[kind].network
    keeps_kind = "kind" in {setting.name for setting in fields(config_class)}
    values = {key: value for key, value in values.items() if key != "kind" or keeps_kind}
    try:
        return from_dict(config_class, values), module_class
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{part} configuration: {error}") from error


def load_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Load a checkpoint folder; networks are float32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: a file is missing or damaged, names or shapes do not fit, or tokenizer
            and transformer do not fit each other.
    """
    folder = Path(folder)
    config = read_config(folder)
    tokenizer_config, tokenizer_class = parse_network(config, "tokenizer", TOKENIZERS)
    classes = config.get("classes", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"classes in {CONFIG_FILE} must be a list of names")
    sampling = read_sampling("sampling", config.get("sampling", {}))
    presets = config.get("presets", {})
    if not isinstance(presets, dict):
        raise CheckpointError(f"presets in {CONFIG_FILE} must be settings by name")
    presets = {name: read_sampling(f"preset {name!r}", entry) for name, entry in presets.items()}
    transformer = None
    if "transformer" in config:
        transformer_config, transformer_class = parse_network(config, "transformer", TRANSFORMERS)
        check_fit(tokenizer_config, transformer_config, classes)
        transformer = load_weights(transformer_class, transformer_config, folder / TRANSFORMER_FILE)
    tokenizer = load_weights(tokenizer_class, tokenizer_config, folder / TOKENIZER_FILE)
    return Checkpoint(tokenizer, transformer, classes, sampling, presets)


def read_sampling(name: str, values: Any) -> SamplingConfig:
    """Return decoding settings of config.json.

    Raises:
        CheckpointError: an unknown setting or a value out of range.
    """
    try:
        return from_dict(SamplingConfig, values)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{name} in {CONFIG_FILE}: {error}") from error


def check_fit(tokenizer_config: Any, transformer_config: Any, classes: list[str]) -> None:
    """Check that a tokenizer and a transformer speak of the same grid, codes and classes.

    Raises:
        CheckpointError: naming both numbers.
    """
    pairs = (
        ("codebook size", tokenizer_config.codebook_size, transformer_config.codebook_size),
        ("grid size", tokenizer_config.grid_size, transformer_config.grid_size),
    )
    for what, left, right in pairs:
        if left != right:
            raise CheckpointError(
                f"the tokenizer has {what} {left}, the transformer {right}; they must be equal"
            )
    if len(classes) != transformer_config.num_classes:
        raise CheckpointError(
            f"the transformer knows {transformer_config.num_classes} classes, "
            f"{CONFIG_FILE} names {len(classes)}"
        )
