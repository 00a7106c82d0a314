"""Reading published weight files: what a file is follows from its content, never from its name.

PyTorch archives and pickles, safetensors and flax msgpack all end as one flat dict of tensors.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskgit_core.files import CheckpointError
from maskgit_core.weights.archives import pickle_of_archive
from maskgit_core.weights.checks import check_header
from maskgit_core.weights.pickles import Findings, RefusedPickle, look_over

# Under which the published files keep their weights, best first: a running mean before the rest.
NESTS = ("ema", "model_state_dict", "model", "state_dict", "params")
PREFIXES = ("module", "_orig_mod")
CHUNKED = "__msgpack_chunked_array__"
LEGACY_PICKLES = 5  # in a file of PyTorch before 1.6: three of the format, the content, the keys
MAX_TENSORS = 20_000  # the largest published files have some hundreds
MAX_ARRAY, MAX_ENTRIES = 64, 1 << 16  # of a flax file: axes of an array, names of a level
SAFE_GLOBALS = threading.Lock()


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
    tensors = find_tensors(content)
    if not tensors:
        raise CheckpointError(f"{path.name} holds no weights")
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(f"{path.name} holds more tensors than any weights do")
    beside = content if isinstance(content, Mapping) else {}
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
    """Read a file of torch.save; its tensors are mapped from the disk."""
    with reading(path):
        content, records = pickle_of_archive(path)
        found = look_over(content, path.stat().st_size)
        if any(records.get(key) != size for key, size in found.storages.items()):
            raise RefusedPickle("is damaged or cut short: a tensor is not whole")
        return load_with_placeholders(path, found, mmap=True)


def read_pickle(path: Path) -> Any:
    """Read a file of torch.save before PyTorch 1.6."""
    with reading(path):
        found = Findings()
        with path.open("rb") as file:
            for _ in range(LEGACY_PICKLES):
                one = look_over(file, path.stat().st_size)
                found.uses.update(one.uses)
        return load_with_placeholders(path, found, mmap=False)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong with a PyTorch file into one sentence.

    Raises:
        CheckpointError: it is damaged, tries to run code, or would take forever.
    """
    try:
        yield
    except RefusedPickle as error:
        if error.runs_code:
            raise CheckpointError(
                f"{path.name} is not read, because it tries to run code: {error}; "
                "get the weights from a source that you trust"
            ) from error
        raise CheckpointError(f"{path.name} {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is not read: it is cut short, or it holds objects that no weights have"
        ) from error
    except Exception as error:  # torch and the standard library raise many kinds for damage
        why = str(error).split("\n")[0][:200]
        raise CheckpointError(f"{path.name} is damaged or cut short: {why}") from error


class Placeholder:
    """Stands for an object of a foreign class; forgets whatever it is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def placeholders(uses: Mapping[str, set[str]]) -> list[tuple[type, str]]:
    """Return (class, name it stands for) for `torch.serialization.safe_globals`.

    The loader puts items only into what is a dict or a list exactly: an object that gets some
    becomes one.

    Raises:
        RefusedPickle: objects of one class are used in ways that no stand-in has.
    """
    found: list[tuple[type, str]] = []
    for path, ways in uses.items():
        if len(ways) > 1:
            raise RefusedPickle(f"holds objects of {path}, which nothing can stand for")
        inside: dict[str, Any] = {}
        if "items" in ways:
            inside["__new__"] = lambda cls, *args, **kwargs: OrderedDict()
        elif "append" in ways:
            inside["__new__"] = lambda cls, *args, **kwargs: []
        found.append((type("Placeholder", (Placeholder,), inside), path))
    return found


def load_with_placeholders(path: Path, found: Findings, *, mmap: bool) -> Any:
    """Let PyTorch load what was looked over, with stand-ins for foreign classes."""
    stand_ins: list[Any] = [*placeholders(found.uses)]
    # PyTorch keeps the list of them for the whole process.
    with SAFE_GLOBALS, torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    check_header(path)
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
        content = msgpack.unpackb(
            path.read_bytes(),
            ext_hook=flax_value,
            raw=False,
            max_array_len=MAX_ARRAY,
            max_map_len=MAX_ENTRIES,
        )
        return join_chunks(content)
    except Exception as error:  # msgpack and the array decoding raise many kinds
        raise CheckpointError(f"{path.name} is damaged or cut short: {error}") from error


def flax_value(code: int, data: bytes) -> Any:
    """Decode flax's msgpack extensions: 1 array and 3 array scalar, (shape, dtype, bytes) each."""
    import msgpack

    if code not in (1, 3):
        return None
    shape, dtype, raw = msgpack.unpackb(data, raw=True, max_array_len=MAX_ARRAY, max_map_len=0)
    kind = getattr(torch, dtype.decode(), None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"arrays of type {dtype.decode()!r} are not supported")
    if not raw and not prod(shape):
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


def find_tensors(content: Any) -> dict[str, Tensor]:
    """Return the tensors of the nest that holds the weights, as a flat dict."""
    if not isinstance(content, Mapping):
        return {}
    for nest in NESTS:
        inside = content.get(nest)
        if isinstance(inside, Mapping) and inside is not content:
            tensors = find_tensors(inside)
            if tensors:
                return tensors
    return flatten(content)


def flatten(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Join the names of nested dicts by "/"; what is no tensor is left out.

    Every dict counts once, where it is met first: a file may hold one in many places, and in
    itself, with more paths to it than anyone can walk.
    """
    flat: dict[str, Tensor] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        prefix, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        inner = []
        for key, value in part.items():
            if isinstance(value, Tensor):
                flat[f"{prefix}{key}"] = value
            elif isinstance(value, Mapping):
                inner.append((f"{prefix}{key}/", value))
        waiting.extend(reversed(inner))
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
