"""Reading published weight files: what a file is follows from its content, never from its name.

PyTorch archives and pickles, safetensors and flax msgpack all end as one flat dict of tensors.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskgit_core.files import CheckpointError
from maskgit_core.weights.unpickle import StoredTensor, read_restricted, read_tensor

# Under which the published files keep their weights, best first: a running mean before the rest.
NESTS = ("ema", "model_state_dict", "model", "state_dict", "params")
PREFIXES = ("module", "_orig_mod")
CHUNKED = "__msgpack_chunked_array__"


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file.

    Attributes:
        name: of the file, for messages.
        tensors: name -> tensor; nested names are joined by "/", wrapper prefixes are removed.
        beside: the other entries of the outermost level, for what the tensors do not say.
    """

    name: str
    tensors: dict[str, Tensor]
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}


def read_weights(path: str | os.PathLike[str]) -> WeightFile:
    """Read a published weight file; PyTorch tensors are mapped from the disk, not copied.

    Args:
        path: a file of any name, see the module's docstring for the formats.

    Raises:
        CheckpointError: the file is missing, of another format, cut short, without weights, or
            tries to run code.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the weight file in it")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    content = reader_of(head, path.name)(path)
    archive = None
    if isinstance(content, tuple):
        content, archive = content
    tensors = find_tensors(content)
    if archive is not None:
        with archive:
            tensors = {
                name: read_tensor(archive, value) if isinstance(value, StoredTensor) else value
                for name, value in tensors.items()
            }
    if not tensors:
        raise CheckpointError(f"{path.name} holds no weights")
    beside = {} if archive is not None or not isinstance(content, Mapping) else content
    return WeightFile(path.name, strip_prefixes(tensors, path.name), beside)


def reader_of(head: bytes, name: str) -> Callable[[Path], Any]:
    """Return the function that reads a file with these first bytes.

    Raises:
        CheckpointError: no known format.
    """
    if head[:4] == b"PK\x03\x04":
        return read_archive
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return read_pickle
    if head[8:9] == b"{":
        return read_safetensors
    # Bytes that open a map of at least one entry; an empty one is also a pickle's first byte.
    if head[:1] and (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return read_msgpack
    kind = "of an unknown format"
    if not head:
        kind = "empty"
    elif head.startswith(b"version https://git-lfs"):
        kind = "a Git LFS pointer and not the weights themselves"
    elif head.lstrip()[:1] == b"<":
        kind = "a web page"
    raise CheckpointError(
        f"{name} is {kind}; weights are PyTorch, safetensors or flax msgpack files"
    )


def read_archive(path: Path) -> Any:
    """Read a file of torch.save; with foreign objects in it, (objects, open archive)."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        return read_restricted(path)
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise CheckpointError(f"{path.name} is damaged or cut short: {error}") from error


def read_pickle(path: Path) -> Any:
    """Read a file of torch.save before PyTorch 1.6."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is not read: it is cut short, or it holds objects other than tensors, "
            "which could run code"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{path.name} is damaged or cut short: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is damaged or cut short: {error}") from error


def read_msgpack(path: Path) -> Any:
    """Read a flax msgpack file, without flax.

    Raises:
        CheckpointError: cut short, or the msgpack package is missing.
    """
    try:
        import msgpack
    except ImportError as error:
        raise CheckpointError(
            f"{path.name} is a msgpack file; reading it needs the Python package msgpack"
        ) from error
    try:
        content = msgpack.unpackb(path.read_bytes(), ext_hook=flax_value, raw=False)
        return join_chunks(content)
    except Exception as error:  # msgpack and the array decoding raise many kinds
        raise CheckpointError(f"{path.name} is damaged or cut short: {error}") from error


def flax_value(code: int, data: bytes) -> Any:
    """Decode flax's msgpack extensions: 1 array and 3 array scalar, (shape, dtype, bytes) each."""
    import msgpack

    if code not in (1, 3):
        return None
    shape, dtype, raw = msgpack.unpackb(data, raw=True)
    kind = getattr(torch, dtype.decode(), None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"arrays of type {dtype.decode()!r} are not supported")
    if not raw:
        return torch.empty(tuple(shape), dtype=kind)
    return torch.frombuffer(bytearray(raw), dtype=kind).reshape(tuple(shape))


def join_chunks(content: Any) -> Any:
    """Put arrays together that flax split because of their size."""
    if not isinstance(content, dict):
        return content
    if content.get(CHUNKED):
        count, shape = len(content["chunks"]), content["shape"]
        flat = torch.cat([content["chunks"][str(index)].flatten() for index in range(count)])
        return flat.reshape([int(shape[str(index)]) for index in range(len(shape))])
    return {key: join_chunks(value) for key, value in content.items()}


def find_tensors(content: Any) -> dict[str, Any]:
    """Return the tensors of the nest that holds the weights, as a flat dict."""
    if not isinstance(content, Mapping):
        return {}
    for nest in NESTS:
        if isinstance(content.get(nest), Mapping):
            tensors = find_tensors(content[nest])
            if tensors:
                return tensors
    return flatten(content)


def flatten(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Join the names of nested dicts by "/"; what is no tensor is left out."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Tensor | StoredTensor):
            flat[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
    return flat


def strip_prefixes(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Remove the names of wrappers (parallel training, compilation) wherever they occur.

    Raises:
        CheckpointError: two tensors have the same name afterwards.
    """
    stripped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in name.split(".") if part not in PREFIXES)
        if short in stripped:
            raise CheckpointError(f"{source} holds {short} twice, with and without a prefix")
        stripped[short] = tensor
    return stripped
