"""The directory of a PyTorch archive, looked over before PyTorch opens it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from maskgit_core.weights.pickles import RefusedPickle

MAX_PICKLE = 1 << 24  # bytes; the largest published files have some hundred thousand
MAX_DIRECTORY = 1 << 23
END, END_64 = b"PK\x05\x06", b"PK\x06\x06"
END_SPAN = 22 + 65_535 + 20 + 56  # the end record with the longest comment, and the long form's


def pickle_of_archive(path: Path) -> tuple[bytes, dict[str, int]]:
    """Return an archive's pickle, and key -> bytes of each of its storages.

    Raises:
        RefusedPickle: it is compressed, which torch.save never does; or its directory, or its
            pickle, is larger than weights need; or it has two files of one name.
        zipfile.BadZipFile, KeyError: it is damaged.
    """
    check_directory(path)
    with zipfile.ZipFile(path) as archive:
        files = archive.infolist()
        # PyTorch finds names without regard to their case, in a directory that has one folder.
        names = [file.filename.lower() for file in files]
        pickles = [file for file in files if file.filename.lower().endswith("data.pkl")]
        if len(set(names)) < len(names) or len(pickles) != 1:
            raise RefusedPickle("is damaged: it is not one file of torch.save")
        if any(file.compress_type != zipfile.ZIP_STORED for file in files):
            raise RefusedPickle("is not read: it is compressed, which files of torch.save are not")
        if sum(file.file_size for file in files) > path.stat().st_size:
            raise RefusedPickle("is damaged or cut short: it holds less than it says")
        if pickles[0].file_size > MAX_PICKLE:
            raise RefusedPickle("holds a structure that is far too large for weights")
        root = pickles[0].filename.removesuffix("data.pkl")
        start = f"{root}data/"
        sizes = {
            file.filename.removeprefix(start): file.file_size
            for file in files
            if file.filename.startswith(start)
        }
        return archive.read(pickles[0]), sizes


def check_directory(path: Path) -> None:
    """Raise RefusedPickle where the directory alone would take seconds to read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - END_SPAN))
        tail = file.read()
    at = tail.rfind(END)
    if at < 0:
        return  # no archive, or cut short: said by who reads it
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    long = tail.rfind(END_64, 0, at)
    if length == 0xFFFFFFFF and long >= 0:
        length = int.from_bytes(tail[long + 40 : long + 48], "little")
    if length > MAX_DIRECTORY:
        raise RefusedPickle("has more entries than any weights do")
