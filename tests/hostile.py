"""Small weight files that never end, or grow, in who reads them without care.

    python hostile.py DIR    # writes them, reads each, prints one JSON line a file

The lines have the file's name, the seconds of processor that its reading took, the megabytes that
the process grew, and the sentence that refused it (empty where nothing did).
"""

from __future__ import annotations

import json
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgpack

MEGABYTE = b"\0" * 1_000_000


def text(word: str) -> bytes:
    """Opcode that pushes a text."""
    raw = word.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def archive(path: Path, content: bytes, **extra: bytes) -> None:
    """Write a file of torch.save with this pickle; extra entries are storages."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for name, data in extra.items():
            file.writestr(f"archive/data/{name.removeprefix('_')}", data)


def shared(first: bytes, again: bytes, levels: int = 40) -> bytes:
    """Something that holds the one before it twice, so often: 2 ** levels paths in a kilobyte."""
    out = first + b"q\0"
    for i in range(1, levels):
        out += again.replace(b"?", bytes([i - 1])) + b"q" + bytes([i])
    return out


SHARED_DICTS = b"\x80\x02}q\0X\x01\0\0\0aK\x01s" + b"".join(
    b"}q%c(X\x01\0\0\0ah%cX\x01\0\0\0bh%cu" % (i, i - 1, i - 1) for i in range(1, 40)
)
SHARED_TUPLE = shared(b")", b"h?\x86")
STORAGE = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
    b"X\x01\0\0\0%sX\x03\0\0\0cpu%st%sK\0%s%s\x89ccollections\nOrderedDict\n)RtR"
)


def tensor(count: bytes, shape: bytes, strides: bytes, key: bytes = b"0") -> bytes:
    """A dict of one tensor of a storage of so many elements; numbers are opcodes."""
    made = STORAGE % (key, count, b"Q", shape, strides)
    return b"\x80\x02}" + text("a") + made + b"s."


def number(value: int) -> bytes:
    """Opcode that pushes a whole number."""
    raw = value.to_bytes(10, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def legacy(content: bytes, keys: bytes = b"\x80\x02].") -> bytes:
    """A file of PyTorch before 1.6 with this pickle."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    return (
        magic + pickle.dumps(1001, protocol=2) + pickle.dumps(system, protocol=2) + content + keys
    )


def compressed(path: Path, *, bomb: str) -> None:
    """An archive with 200 MB of zeros in 200 KB: as a storage, or as the pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        if bomb != "archive/data.pkl":
            file.writestr("archive/data.pkl", b"\x80\x02}.")
        with file.open(bomb, "w", force_zip64=True) as member:
            for _ in range(200):
                member.write(MEGABYTE)


def many_entries(path: Path) -> None:
    """An archive of 150,000 empty entries."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}.")
        for i in range(150_000):
            file.writestr(f"archive/data/{i:040d}", b"")


def twice(path: Path) -> None:
    """An archive with two pickles, whose names differ in case only."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/DATA.PKL", SHARED_DICTS + b".")
        file.writestr("archive/data.pkl", b"\x80\x02}.")


def safetensors(header: bytes, length: int | None = None, rest: bytes = b"") -> bytes:
    """A safetensors file with this header, which may lie about its length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + rest


def flax(shape: tuple[int, ...], raw: bytes) -> msgpack.ExtType:
    """An array of a flax file."""
    return msgpack.ExtType(1, msgpack.packb((shape, "float32", raw)))


HALTON = "transformer.layers.{}.attn.wq.weight"
LAYERS = {"tok_emb.weight": {"dtype": "F32", "shape": [9, 384], "data_offsets": [0, 13824]}}


def far_layer(index: int) -> bytes:
    """A transformer whose highest layer has this number."""
    entries = {
        **LAYERS,
        "cls_emb.weight": {"dtype": "F32", "shape": [3, 384], "data_offsets": [13824, 18432]},
        "pos_emb.weight": {"dtype": "F32", "shape": [4, 384], "data_offsets": [18432, 24576]},
        "reg_tokens.weight": {"dtype": "F32", "shape": [0, 384], "data_offsets": [24576, 24576]},
        HALTON.format(0): {"dtype": "F32", "shape": [384, 0], "data_offsets": [24576, 24576]},
        "transformer.layers.0.ff.w1.weight": {
            "dtype": "F32",
            "shape": [512, 0],
            "data_offsets": [24576, 24576],
        },
        HALTON.format(index): {"dtype": "F32", "shape": [384, 0], "data_offsets": [24576, 24576]},
    }
    return safetensors(json.dumps(entries).encode(), rest=bytes(24576))


def one_dimension(count: int) -> tuple[bytes, bytes]:
    """Shape and strides, as opcodes."""
    return number(count) + b"\x85", number(1) + b"\x85"


def pickles() -> dict[str, bytes]:
    """File name -> pickle, each of which is written into an archive."""
    mega, giga = number(1_000_000), number(2_000_000_000)
    return {
        "shared_dicts.pt": SHARED_DICTS + b".",
        "cyclic.pt": b"\x80\x02}q\0X\x05\0\0\0modelh\0s.",
        "cyclic_list.pt": b"\x80\x02}q\0X\x05\0\0\0model]q\1h\1ah\0h\1\x86es.",
        "bytearray.pt": b"\x80\x02cbuiltins\nbytearray\n" + giga + b"\x85R.",
        "old_bytearray.pt": b"\x80\x02c__builtin__\nbytearray\n" + giga + b"\x85R.",
        "deep_lists.pt": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep_dicts.pt": b"\x80\x02" + b"}X\x01\0\0\0a" * 60_000 + b"N" + b"s" * 60_000 + b".",
        "deep_tuples.pt": b"\x80\x02}q\0h\0)" + b"\x85" * 200_000 + b"Ns.",
        "tuple_key.pt": b"\x80\x02}" + SHARED_TUPLE + b"Ns.",
        "tuple_in_set.pt": b"\x80\x02cbuiltins\nset\n]" + SHARED_TUPLE + b"a\x85R.",
        "tuple_counted.pt": b"\x80\x02ccollections\nCounter\n]" + SHARED_TUPLE + b"a\x85R.",
        "tuple_ordered.pt": b"\x80\x02ccollections\nOrderedDict\n]]" + SHARED_TUPLE + b"aNaa\x85R.",
        "tuple_state.pt": b"\x80\x02ccollections\nOrderedDict\n)R]]" + SHARED_TUPLE + b"aNaab.",
        "tuple_called.pt": b"\x80\x02" + SHARED_TUPLE + b")R.",
        "tuple_made.pt": b"\x80\x02" + SHARED_TUPLE + b")\x81.",
        "tuple_storage.pt": b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\n"
        + SHARED_TUPLE
        + b"X\x03\0\0\0cpuK\x01tQ.",
        "tuple_persistent.pt": b"\x80\x02" + SHARED_TUPLE + b"Q.",
        "huge_tensor.pt": b"\x80\x02ctorch\nFloatTensor\n" + number(3_000_000_000) + b"\x85R.",
        "huge_storage.pt": b"\x80\x02ctorch.storage\nUntypedStorage\n"
        + number(1 << 34)
        + b"\x85R.",
        "meta_tensor.pt": b"\x80\x02ctorch._utils\n_rebuild_wrapper_subclass\n)R.",
        "lying_storage.pt": tensor(number(10**12), *one_dimension(10**12)),
        "expanded.pt": tensor(K4, mega + mega + b"\x86", K0 + K0 + b"\x86"),
        "many_names.pt": b"\x80\x02]("
        + b"".join(b"cmodule%d\nClass\n" % i for i in range(30_000))
        + b"e.",
        "many_calls.pt": b"\x80\x02]q\0(cmodule\nClass\nq\1" + b"h\1)R" * 300_000 + b"e.",
        "grown_texts.pt": b"\x80\x02](c_codecs\nencode\nq\1"
        + text("x" * 1_000_000)
        + b"q\2"
        + text("latin1")
        + b"q\3"
        + b"h\1h\2h\3\x86R" * 20_000
        + b"e.",
        "slow_codec.pt": b"\x80\x02c_codecs\nencode\n"
        + text("ä€" * 200_000)
        + text("punycode")
        + b"\x86R.",
        "grown_arguments.pt": b"\x80\x02](cmodule\nClass\nq\1("
        + b"N" * 100_000
        + b"tq\2"
        + b"h\1h\2R" * 50_000
        + b"e.",
        "far_memo.pt": b"\x80\x02}r\xff\xff\xff\xff.",
        "endless_text.pt": b"\x80\x02X\xff\xff\xff\xffabc.",
        "new_protocol.pt": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    }


K0, K4 = b"K\0", b"K\x04"


def others() -> dict[str, bytes | Callable[[Path], object]]:
    """File name -> content, or what writes it."""
    nested = b"\xdd\x00\x98\x96\x80" * 900  # arrays that say they have ten million entries
    deep = b"\x81\xa1a" * 50_000 + b"\xc0"
    return {
        "compressed_storage.pt": lambda path: compressed(path, bomb="archive/data/0"),
        "compressed_pickle.pt": lambda path: compressed(path, bomb="archive/data.pkl"),
        "many_entries.pt": many_entries,
        "two_pickles.pt": twice,
        "legacy_lying.pt": legacy(tensor(number(10**10), *one_dimension(10**10))),
        "legacy_shared.pt": legacy(SHARED_DICTS + b"."),
        "legacy_key.pt": legacy(b"\x80\x02}" + SHARED_TUPLE + b"Ns."),
        "legacy_keys.pt": legacy(b"\x80\x02}.", b"\x80\x02}" + SHARED_TUPLE + b"Ns."),
        "legacy_magic.pt": b"\x80\x02}" + SHARED_TUPLE + b"Ns.",
        "nested_arrays.msgpack": b"\x81\xa1a" + nested + bytes(9_000_000),
        "deep_maps.msgpack": deep,
        "huge_array.msgpack": msgpack.packb({"a": flax((100_000, 100_000), b"")}),
        "lying_array.msgpack": msgpack.packb({"a": flax((1 << 40,), bytes(16))}),
        "long_shape.msgpack": msgpack.packb({"a": flax((1,) * 1_000_000, bytes(4))}),
        "long_header.safetensors": safetensors(b"{}", 1 << 40),
        "long_spaces.safetensors": lambda path: sparse(path, 90_000_000),
        "deep_header.safetensors": safetensors(b'{"a":' + b"[" * 1_000_000),
        "many_tensors.safetensors": safetensors(
            json.dumps(
                {
                    f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                    for i in range(100_000)
                }
            ).encode()
        ),
        "lying_tensor.safetensors": safetensors(
            b'{"a":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}', rest=bytes(4)
        ),
        "far_layer.safetensors": far_layer(999),
        "very_far_layer.safetensors": far_layer(999_999_999),
    }


def sparse(path: Path, size: int) -> None:
    """A safetensors file whose header is spaces."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", size) + b"{")
        for _ in range(size // 1_000_000):
            file.write(b" " * 1_000_000)


def write_all(folder: Path) -> list[Path]:
    """Write every file; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pickles().items():
        archive(folder / name, content, _0=bytes(16))
    for name, made in others().items():
        if callable(made):
            made(folder / name)
        else:
            (folder / name).write_bytes(made)
    return sorted(folder.iterdir())


def main() -> None:
    """Write the files and read them."""
    import torch  # noqa: F401  (before the first reading, so that it does not count)

    from maskgit_core.files import CheckpointError
    from maskgit_core.weights.convert import convert_transformer

    for path in write_all(Path(sys.argv[1])):
        seconds, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        says = ""
        try:
            convert_transformer(path)
        except (CheckpointError, ValueError) as error:
            says = str(error)
        seconds = time.process_time() - seconds
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1e3
        line = {"name": path.name, "seconds": seconds, "megabytes": grown, "says": says}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
