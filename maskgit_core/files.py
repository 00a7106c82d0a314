"""Files that are whole or not there: writing in one go, and the error of files that are neither."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError

Writer = Callable[[str], object]


class CheckpointError(Exception):
    """Weights, or another file of ours, are missing, damaged, of another shape or unwritable."""


def write_atomically(path: str | os.PathLike[str], write: Writer) -> None:
    """Call write(temporary path), then move the result to path; path survives any failure.

    Raises:
        CheckpointError: the disk is full or not writable.
    """
    write_all_atomically({Path(path): write})


def write_all_atomically(writers: Mapping[Path, Writer]) -> None:
    """Write several files, as `write_atomically`, and move them only when all are written.

    A disk that fills up halfway leaves the old files as they were, all of them; a link stays one.

    Raises:
        CheckpointError: the disk is full or not writable, or something else than a file is there.
    """
    temporaries: dict[Path, Path] = {}
    path = Path()
    try:
        for place, write in writers.items():
            # Through a link, which stays; never in the place of a folder, a pipe or a device.
            path = Path(os.path.realpath(place))
            if path.exists() and not path.is_file():
                raise OSError("it is no regular file")
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
            temporaries[path] = temporary
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode
            write(str(temporary))
            # safetensors writes a file of its own that only its owner can read.
            temporary.chmod(mode)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"could not write {path.name}: {error}; what was there before is unchanged"
        ) from error
    finally:
        # Ctrl-C may come at any place, too; nothing is left to delete where all went well.
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
