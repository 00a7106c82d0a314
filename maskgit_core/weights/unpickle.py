"""Reading checkpoints that hold foreign objects, without importing or running anything.

Training frameworks store their own objects beside the weights, and `torch.load` with
`weights_only=True` refuses such files. Here every class that is not plain data becomes a
placeholder, and a call of a function that weights have no need of ends the reading.
"""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskgit_core.files import CheckpointError

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
PLAIN_TYPES = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)
# Functions that pickles of harmless objects call; their results are of no use here.
HARMLESS = {
    ("copyreg", "_reconstructor"),
    ("copy_reg", "_reconstructor"),
    ("_codecs", "encode"),
    ("collections", "defaultdict"),
    ("torch", "device"),
}
# Modules without any place in a checkpoint; naming one of them is reason enough to stop.
REFUSED_MODULES = (
    "asyncio builtins __builtin__ code codeop commands ctypes functools importlib io marshal "
    "multiprocessing nt ntpath operator os pdb pickle platform posix posixpath pty pydoc runpy "
    "shutil signal site socket subprocess sys tempfile threading timeit webbrowser"
).split()


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in the file.

    Attributes:
        key: name of its storage in the archive.
        dtype: of the elements.
        offset, shape, stride: place in the storage, in elements.
    """

    key: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Placeholder(dict):
    """Stands for an object of a foreign class; keeps items and ignores everything else."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, item: Any) -> None:
        """Ignore the item of a list-like object."""

    def extend(self, items: Any) -> None:
        """Ignore the items of a list-like object."""

    def add(self, item: Any) -> None:
        """Ignore the item of a set-like object."""


def rebuild_tensor(storage: Any, offset: int, shape: Any, stride: Any, *_: Any) -> StoredTensor:
    """Describe a tensor; stands for torch's own function of that purpose."""
    _, dtype, key, _, _ = storage
    return StoredTensor(str(key), dtype, int(offset), tuple(shape), tuple(stride))


def rebuild_parameter(data: Any, *_: Any) -> Any:
    """Return the tensor of a parameter."""
    return data


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler that knows tensors and plain data and imports nothing.

    Raises:
        pickle.UnpicklingError: the pickle names a module or calls a function that weights have no
            need of.
    """

    def persistent_load(self, reference: Any) -> Any:
        """Return torch's description of a storage: (word, dtype, key, device, elements)."""
        return reference

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name in the pickle; never imports it."""
        if module in ("builtins", "__builtin__"):
            for plain in PLAIN_TYPES:
                if plain.__name__ == name:
                    return plain
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if (module, name) == ("torch", "Size"):
            return tuple
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return rebuild_parameter
        if module.split(".")[0] in REFUSED_MODULES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        harmless = (module, name) in HARMLESS or module.split(".")[0] == "numpy"
        # By convention classes are capitalised and functions are not: an object may be left out,
        # but a call would have had an effect that is lost, so such a file is not trusted.
        if harmless or name.rpartition(".")[2].lstrip("_")[:1].isupper():
            return type(name, (Placeholder,), {"__module__": "placeholder"})

        def refuse(*_: Any, **__: Any) -> None:
            raise pickle.UnpicklingError(f"it calls the function {module}.{name}")

        return refuse


def read_restricted(path: Path) -> tuple[Any, zipfile.ZipFile]:
    """Read the structure of a torch archive; tensors stay in the file as StoredTensor.

    Returns:
        (objects, the open archive); close the archive when the tensors are read.

    Raises:
        CheckpointError: the file is damaged, or tries to run code; nothing has been run.
    """
    try:
        archive = zipfile.ZipFile(path)
        entry = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(entry) as file:
            return RestrictedUnpickler(file).load(), archive
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is not read, because it tries to run code: {error}; "
            "get the weights from a source that you trust"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path.name} is damaged or cut short: {error}") from error


def read_tensor(archive: zipfile.ZipFile, stored: StoredTensor) -> Tensor:
    """Read one tensor.

    Raises:
        CheckpointError: its storage is missing or too short.
    """
    entry = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    root = entry.removesuffix("data.pkl")
    try:
        order = archive.read(f"{root}byteorder").decode().strip()
    except KeyError:
        order = "little"
    try:
        raw = bytearray(archive.read(f"{root}data/{stored.key}"))
        if order != sys.byteorder:
            raise ValueError(f"it was written on a machine with {order} byte order")
        if not prod(stored.shape):
            return torch.empty(stored.shape, dtype=stored.dtype)
        flat = torch.frombuffer(raw, dtype=stored.dtype)
        return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()
    except Exception as error:  # missing entry, bad checksum, too few bytes, bad strides
        raise CheckpointError(f"a tensor of {archive.filename} cannot be read: {error}") from error
