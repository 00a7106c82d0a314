"""Downloads from a plain web address, for files that are not on the Hugging Face Hub.

A download that breaks off leaves what has arrived in a file `.part`, and the next one goes on
there where the server can send a part (HTTP ranges) and still has the same file; else it starts
over. The server's own checksum is compared where it sends one.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from maskgit_core.hub_client import FetchError, is_offline, is_out_of_room
from maskgit_core.weights.progress import Progress, hub_bar
from maskgit_core.weights.published import PublishedFile, size_words

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # in a row that bring nothing new
PAUSE = 1.0  # seconds before the next try


class _Ended(Exception):
    """The connection ended before the file did."""


def fetch_address(
    file: PublishedFile, folder: Path, hand_folder: Path, whose: str, progress: Progress
) -> Path:
    """Return a file of a web address in a folder, fetched where it is not there yet.

    Args:
        file: with a `url`.
        folder: where it is fetched to.
        hand_folder: where it can be put by hand; messages name it.
        whose: whose server it is, for messages.
        progress: counts, and may cancel.

    Raises:
        FetchError: it is not there any more, there is no connection, or it breaks off again and
            again; one sentence.
    """
    target, part = folder / file.name, folder / f"{file.name}.part"
    by_hand = f"or put {file.name} into {hand_folder} by hand"
    if target.is_file():
        return target
    if is_offline():
        raise FetchError(
            "offline",
            f"HF_HUB_OFFLINE forbids to fetch {file.name} from {whose}; allow it, {by_hand}",
        )
    failures = 0
    while True:
        before = _size(part)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch_rest(file, part, progress)
            part.replace(target)
            return target
        except urllib.error.HTTPError as error:
            raise _answer(error, file, whose, by_hand) from error
        except (OSError, http.client.HTTPException, _Ended) as error:
            if is_out_of_room(error):
                raise FetchError(
                    "no room", f"no room on the disk for {file.name}; free some and try again"
                ) from error
            arrived = _size(part)
            failures = 0 if arrived > before else failures + 1
            if not arrived and not isinstance(error, _Ended):
                raise FetchError(
                    "offline", f"there is no connection to {whose}: try again later, {by_hand}"
                ) from error
            if failures >= TRIES:
                raise FetchError(
                    "broken",
                    f"the download of {file.name} broke off after {size_words(arrived)}; "
                    "try again: it goes on there if the server can, else it starts over",
                ) from error
        progress.check()
        time.sleep(PAUSE)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_rest(file: PublishedFile, part: Path, progress: Progress) -> None:
    """Bring a part to the end of its file.

    Raises:
        _Ended: the connection broke off; what has arrived is in the part.
    """
    stamp = part.with_suffix(".stamp")  # which content the part is of
    request = urllib.request.Request(file.url, headers={"Accept-Encoding": "identity"})
    start = _size(part)
    if start and stamp.is_file():
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", stamp.read_text(encoding="utf-8"))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink(missing_ok=True)  # longer than the file is now: another file
        raise _Ended from error
    with answer:
        start, total = _place(answer, start)
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        # A weak mark or none says nothing about single bytes: such a part is not gone on with.
        stamp.unlink(missing_ok=True)
        if mark and not mark.startswith("W/"):
            stamp.write_text(mark, encoding="utf-8")
        if total is not None and shutil.disk_usage(part.parent).free < total - start:
            raise FetchError(
                "no room",
                f"no room on the disk for {file.name}: it needs {size_words(total - start)} more",
            )
        _write(answer, part, start, total, file, progress)
        _check_sum(answer.headers.get_all("x-goog-hash") or [], part, file, progress)
    stamp.unlink(missing_ok=True)


def _place(answer: Any, start: int) -> tuple[int, int | None]:
    """Return where an answer begins in the file, and how long the file is."""
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if found and int(found[1]) == start:
            return start, int(found[2])
        raise _Ended  # not what was asked for
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length and length.isdigit() else None


def _write(
    answer: Any, part: Path, start: int, total: int | None, file: PublishedFile, progress: Progress
) -> None:
    if total is not None:
        progress.expect(file.path, total)
    bar = hub_bar(progress, file.path)(
        total=total, initial=start, desc=file.name, unit="B", unit_scale=True, disable=None
    )
    arrived = start
    with bar, part.open("ab" if start else "wb") as content:
        while chunk := answer.read(CHUNK):
            content.write(chunk)
            arrived += len(chunk)
            bar.update(len(chunk))
    if total is not None and arrived != total:
        raise _Ended


def _check_sum(sums: list[str], part: Path, file: PublishedFile, progress: Progress) -> None:
    """Compare with the MD5 that Google's storage sends along, against damage on the way."""
    wanted = re.search(r"md5=([\w+/]+=*)", ",".join(sums))
    if not wanted:
        return
    digest = hashlib.md5(usedforsecurity=False)
    with part.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            progress.check()
    if base64.b64encode(digest.digest()).decode() != wanted[1]:
        part.unlink(missing_ok=True)
        raise FetchError(
            "damaged", f"{file.name} was damaged on the way; it has been removed, try again"
        )


def _answer(
    error: urllib.error.HTTPError, file: PublishedFile, whose: str, by_hand: str
) -> FetchError:
    """Return what a server's refusal means."""
    # A bucket that may not be listed says 403 for what is not there.
    if error.code in (401, 403, 404, 410):
        return FetchError(
            "missing",
            f"{file.name} is not in {whose} any more ({error.code}): look for it elsewhere, "
            f"{by_hand.removeprefix('or ')}",
        )
    return FetchError(
        "busy", f"{whose} failed to send {file.name} ({error.code}); try again later, {by_hand}"
    )
