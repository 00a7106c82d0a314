"""Looking a pickle over before PyTorch reads it.

PyTorch's own `weights_only` loader builds the tensors; it imports nothing and calls little. What
it leaves open is closed here, by going through the opcodes without building anything:

- names of foreign classes, which training frameworks store beside the weights, are found, so that
  it can be given placeholders for them; a function, or a module without a place in weights, ends
  the reading;
- what would be small in the file and large or endless in the reader (bytes by the billion, keys
  whose hash takes forever, tensors larger than what is stored of them) ends it too.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO

from torch._utils import IMPORT_MAPPING, NAME_MAPPING

MAX_STEPS = 500_000  # opcodes; the largest published files have some ten thousand
MAX_NAMES = 256
MAX_TEXT = 1 << 24
CALL_STEPS = 20
KEY_LENGTH = 16
SCALARS = (str, bytes, int, float, bool, type(None))
# Bytes of an element, by the name that a pickle has for the kind of storage.
STORAGE_BYTES = {
    f"torch.{name}Storage": width
    for width, names in {
        1: "Bool Byte Char",
        2: "BFloat16 Half Short",
        4: "Float Int",
        8: "ComplexFloat Double Long",
        16: "ComplexDouble",
    }.items()
    for name in names.split()
}
TENSOR_CALLS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
# Modules without any place in weights; naming one of them is reason enough to stop.
REFUSED_MODULES = frozenset(
    "asyncio builtins code codeop commands ctypes functools importlib io marshal multiprocessing "
    "nt ntpath operator os pdb pickle platform posix posixpath pty pydoc runpy shutil signal site "
    "socket subprocess sys tempfile threading timeit webbrowser".split()
)
PLAIN_TYPES = frozenset(
    f"builtins.{name}"
    for name in "bool bytes complex dict float frozenset int list object set str tuple".split()
)
# Functions, and classes in small letters, that pickles of harmless objects call; a placeholder's
# answer is as good as theirs.
HARMLESS = frozenset(
    "copyreg._reconstructor collections.defaultdict collections.deque datetime.date "
    "datetime.datetime datetime.timedelta datetime.timezone".split()
)
# Of PyTorch's own classes, those whose objects a placeholder stands for; the loader would build
# others itself.
FOREIGN_TORCH = re.compile(r"torch\.(nn\.(?!parameter\.)|optim\.|utils\.|amp\.|distributed\.)")
SIMPLE = frozenset(
    "PROTO MARK NONE NEWTRUE NEWFALSE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET STOP".split()
)
KNOWN = frozenset(
    "collections.OrderedDict collections.Counter _codecs.encode builtins.set "
    "builtins.complex".split()
)


class RefusedPickle(Exception):
    """A pickle is not read; the message is the end of a sentence that names the file.

    Attributes:
        runs_code: whether it tries to run something.
    """

    def __init__(self, message: str, *, runs_code: bool = False) -> None:
        super().__init__(message)
        self.runs_code = runs_code


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names."""

    path: str


@dataclass(eq=False)
class Thing:
    """Something that the reader would build.

    Attributes:
        kind: `dict`, `list`, `set`, `storage`, `tensor` or `object`.
        path: class of an object.
        size: elements of a storage.
        plain: of a list, whether it holds scalars only.
    """

    kind: str
    path: str = ""
    size: int = 0
    plain: bool = True


@dataclass
class Findings:
    """What is in a pickle.

    Attributes:
        uses: foreign name -> what is done with its objects: `items`, `append`, `state`.
        storages: key -> bytes of every storage.
    """

    uses: dict[str, set[str]] = field(default_factory=dict)
    storages: dict[str, int] = field(default_factory=dict)


def look_over(pickle: bytes | BinaryIO, available: int) -> Findings:
    """Go through a pickle, from where a file stands to its end, without building anything.

    Args:
        pickle: its bytes, or a file at its beginning.
        available: bytes of the file, which its storages must fit.

    Raises:
        RefusedPickle: it is not read, for one of the reasons in the module's docstring.
        ValueError: it is cut short or no pickle.
    """
    look = _Look()
    for opcode, argument, _ in pickletools.genops(pickle):
        look.step(opcode.name, argument)
    if sum(look.found.storages.values()) > available:
        raise RefusedPickle("is damaged or cut short: it holds less than it says")
    return look.found


class _Look:
    """A reader's stack with descriptions in the place of objects."""

    def __init__(self) -> None:
        self.found = Findings()
        self.steps = 0
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def spend(self, steps: int) -> None:
        """Count work of the reader."""
        self.steps += steps
        if self.steps > MAX_STEPS:
            raise RefusedPickle("holds a structure that is far too large for weights")

    def step(self, name: str, argument: Any) -> None:
        """Take one opcode; those that the loader does not know are refused by it."""
        self.spend(1)
        stack = self.stack
        if name.startswith(("BININT", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")):
            if isinstance(argument, str | bytes) and len(argument) > MAX_TEXT:
                raise RefusedPickle("holds a text that is far too long for weights")
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            stack.append(self.name(argument))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            items = self.pop_mark()
            self.stack.append(tuple(items))
        elif name in ("APPEND", "SETITEM", "APPENDS", "SETITEMS"):
            self.fill(name)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.call(function, arguments, new=name == "NEWOBJ"))
        elif name == "BUILD":
            state = stack.pop()
            self.build(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif name in SIMPLE:
            self.simple(name)
        else:
            raise RefusedPickle(f"is a pickle with {name}, which no weights have")

    def simple(self, name: str) -> None:
        """Take an opcode that needs nothing."""
        if name == "MARK":
            self.marked.append(self.stack)
            self.stack = []
        elif name.startswith("EMPTY"):
            kind = name.removeprefix("EMPTY_").lower()
            self.stack.append(() if kind == "tuple" else Thing(kind))
        elif name.startswith("N"):
            self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])

    def pop_mark(self) -> list[Any]:
        """Return what came since the last mark."""
        items, self.stack = self.stack, self.marked.pop()
        return items

    def name(self, argument: str) -> Name:
        """Take a name of a module's; nothing is imported."""
        module, _, name = argument.partition(" ")
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        path = f"{module}.{name}"
        if " " in name or (module.split(".")[0] in REFUSED_MODULES and path not in PLAIN_TYPES):
            raise RefusedPickle(f"it asks for {path}", runs_code=True)
        if not _is_known(path):
            self.found.uses.setdefault(path, set())
            if len(self.found.uses) > MAX_NAMES:
                raise RefusedPickle("names more foreign classes than any weights do")
        return Name(path)

    def fill(self, name: str) -> None:
        """Put items into a list, a dict, or an object that is like one."""
        many = name.endswith("S")
        dicts = name.startswith("SET")
        if many:
            items = self.pop_mark()
        else:
            count = 2 if dicts else 1
            items = self.stack[-count:]
            del self.stack[-count:]
        target = self.stack[-1]
        if not isinstance(target, Thing) or target.kind not in ("object", "dict", "list"):
            raise RefusedPickle("is damaged: it puts items where none can be")
        if dicts and not all(_is_key(key) for key in items[::2]):
            raise RefusedPickle("has keys that are no names or numbers, which no weights have")
        if target.kind == "object":
            self.found.uses[target.path].add("items" if dicts else "append")
        elif not dicts:
            target.plain &= all(isinstance(item, SCALARS) for item in items)

    def call(self, function: Any, arguments: Any, *, new: bool) -> Any:
        """Describe what a call gives, if it may be made at all."""
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise RefusedPickle("is damaged: it calls what is no function")
        path = function.path
        self.spend(CALL_STEPS + len(arguments) + len(self.found.uses) // 4)
        for argument in arguments:
            self.spend(len(argument) if isinstance(argument, str | bytes | tuple) else 0)
        if not _is_known(path):
            # By convention classes are capitalised and functions are not: an object may be left
            # out, but a call would have had an effect that is lost, so the file is not trusted.
            is_class = path.rpartition(".")[2].lstrip("_")[:1].isupper() or path in PLAIN_TYPES
            if not (is_class or path in HARMLESS or path.startswith("numpy.")):
                raise RefusedPickle(f"it calls the function {path}", runs_code=True)
            return Thing("object", path)
        if path in TENSOR_CALLS:
            return _tensor(arguments)
        first = arguments[0] if arguments else None
        flat = all(_is_key(argument) for argument in arguments)
        thing = first if isinstance(first, Thing) else Thing("", "")
        kind = thing.kind
        result = {
            "torch._utils._rebuild_parameter": (kind == "tensor", "tensor"),
            "collections.OrderedDict": (not arguments or kind == "dict", "dict"),
            "collections.Counter": (not arguments or kind == "dict", "dict"),
            "builtins.set": (kind == "list" and thing.plain if kind else flat, "set"),
            "_codecs.encode": (flat and arguments[1:] == ("latin1",), "bytes"),
            "torch.Size": (flat, "size"),
            "torch.device": (flat, "device"),
            "builtins.complex": (flat, "number"),
        }.get(path)
        if result is None or not result[0] or (new and result[1] != "dict"):
            raise RefusedPickle(f"asks for {path} in a way that no weights do")
        return Thing(result[1])

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state."""
        is_dict = isinstance(state, Thing) and state.kind == "dict"
        kind = target.kind if isinstance(target, Thing) else ""
        if kind == "object":
            if not is_dict:
                self.found.uses[target.path].add("state")
        elif kind != "dict" or not is_dict:
            raise RefusedPickle("is damaged: it changes what cannot be changed")

    def storage(self, reference: Any) -> Thing:
        """Take PyTorch's description of a storage: (word, type, key, device, elements)."""
        if not (
            isinstance(reference, tuple)
            and len(reference) in (5, 6)
            and all(isinstance(part, Name) or _is_key(part) for part in reference)
            and isinstance(reference[1], Name)
            and isinstance(reference[2], str)
            and isinstance(reference[4], int)
            and reference[4] >= 0
        ):
            raise RefusedPickle("is damaged: it describes a storage wrongly")
        width = STORAGE_BYTES.get(reference[1].path)
        if width is None:
            raise RefusedPickle(f"holds tensors of the type {reference[1].path}")
        size = reference[4]
        known = self.found.storages.setdefault(reference[2], size * width)
        if known != size * width:
            raise RefusedPickle("is damaged: it gives a storage two sizes")
        return Thing("storage", size=size)


def _tensor(arguments: tuple[Any, ...]) -> Thing:
    """Describe a tensor (storage, offset, shape, strides, ...), which its storage must fill."""
    storage, offset, shape, strides = (*arguments[:4], *[None] * 4)[:4]
    if not isinstance(storage, Thing) or storage.kind != "storage":
        raise RefusedPickle("is damaged: it has a tensor without a storage")
    whole = isinstance(shape, tuple) and isinstance(strides, tuple)
    numbers = (offset, *shape, *strides) if whole else (None,)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise RefusedPickle("is damaged: it has a tensor without a shape")
    if prod(shape) > storage.size:
        raise RefusedPickle("has a tensor that is larger than what is stored of it")
    return Thing("tensor")


def _is_key(value: Any) -> bool:
    """Whether a value is hashed at once: a scalar, a name, or a short tuple of them."""
    if isinstance(value, tuple):
        return len(value) <= KEY_LENGTH and all(isinstance(v, (*SCALARS, Name)) for v in value)
    return isinstance(value, (*SCALARS, Name))


def _is_known(path: str) -> bool:
    """Whether PyTorch's loader knows a name itself; a placeholder would not be asked for."""
    if path.startswith("torch."):
        return not FOREIGN_TORCH.match(path)
    return path in KNOWN
