"""Weights from a plain web address: Google's models, from a server with and without ranges."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub.constants
import pytest

from maskgit_core.hub_client import FetchError
from maskgit_core.networks.bert import BertTransformer
from maskgit_core.weights import address
from maskgit_core.weights.address import fetch_address
from maskgit_core.weights.checkpoint import load_checkpoint
from maskgit_core.weights.hub import KNOWN_WEIGHTS, fetch_weights
from maskgit_core.weights.progress import Progress
from maskgit_core.weights.published import NOT_VERIFIED, PublishedFile

PARITY = Path(__file__).parent / "fixtures" / "parity"
CONTENT = bytes(range(256)) * 20_000  # 5 MB, several chunks
GOOGLE = KNOWN_WEIGHTS["google-256"]


class Bucket:
    """What a storage bucket answers, and its faults.

    Attributes:
        files: path -> content.
        ranges: whether parts of a file can be asked for.
        cuts: shares of the file after which the next answers break off.
        status: answered in place of everything, where set.
        sums: whether a checksum is sent along.
        asked: the `Range` of every request so far, empty for the whole file.
    """

    def __init__(self, ranges: bool) -> None:
        self.files: dict[str, bytes] = {"/file": CONTENT}
        self.ranges = ranges
        self.cuts: list[float] = []
        self.status = 0
        self.sums = True
        self.wrong_sum = False
        self.asked: list[str] = []
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Stay silent."""

            def do_GET(self) -> None:
                bucket.serve(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer as Google's storage does: ETag, ranges, a checksum in `x-goog-hash`."""
        content = self.files.get(urlsplit(request.path).path)
        status = self.status or (404 if content is None else 200)
        wanted = request.headers.get("Range", "")
        self.asked.append(wanted)
        if status != 200 or content is None:
            request.send_error(status)
            return
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        match = re.match(r"bytes=(\d+)-", wanted)
        if match and self.ranges and request.headers.get("If-Range") in (None, etag):
            start, status = int(match[1]), 206
        request.send_response(status)
        request.send_header("Content-Length", str(len(content) - start))
        request.send_header("ETag", etag)
        if self.sums:
            real = hashlib.md5(content + b"x" * self.wrong_sum).digest()
            request.send_header("x-goog-hash", "crc32c=AAAAAA==")
            request.send_header("x-goog-hash", f"md5={base64.b64encode(real).decode()}")
        if status == 206:
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            request.send_header("Content-Range", place)
        request.end_headers()
        end = int(len(content) * self.cuts.pop(0)) if self.cuts else len(content)
        with contextlib.suppress(OSError):
            request.wfile.write(content[start:end])


@pytest.fixture(params=[True, False], ids=["with ranges", "without ranges"])
def bucket(request, tmp_path, monkeypatch) -> Iterator[Bucket]:
    """A running server; the cache is empty and nobody waits between two tries."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(address, "PAUSE", 0.0)
    running = Bucket(request.param)
    thread = threading.Thread(target=running.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


def fetch(bucket: Bucket, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch the server's one file."""
    file = PublishedFile("", "file", NOT_VERIFIED, len(CONTENT), url=f"{bucket.address}/file")
    hand = folder / "by-hand"
    return fetch_address(file, folder / "here", hand, "the bucket", progress or Progress())


def test_the_whole_file_with_its_size_and_then_no_connection(bucket, tmp_path):
    progress = Progress()
    path = fetch(bucket, tmp_path, progress)
    assert path.read_bytes() == CONTENT
    assert progress.done == progress.total == len(CONTENT)
    assert fetch(bucket, tmp_path) == path and len(bucket.asked) == 1
    assert [found.name for found in path.parent.iterdir()] == ["file"]


def test_a_break_is_gone_on_from_where_the_server_can(bucket, tmp_path):
    bucket.cuts = [0.9]
    progress = Progress()
    assert fetch(bucket, tmp_path, progress).read_bytes() == CONTENT
    assert bucket.asked == ["", f"bytes={int(len(CONTENT) * 0.9)}-"]
    assert progress.done == progress.total == len(CONTENT)


def test_what_has_arrived_outlives_the_process(bucket, tmp_path):
    bucket.cuts = [0.4] * (address.TRIES + 1)
    with pytest.raises(FetchError, match="broke off after 2 MB; try again: it goes on") as error:
        fetch(bucket, tmp_path)
    assert error.value.reason == "broken"
    bucket.asked.clear()
    assert fetch(bucket, tmp_path).read_bytes() == CONTENT
    assert bucket.asked == [f"bytes={int(len(CONTENT) * 0.4)}-"]


def test_a_part_of_another_file_is_not_gone_on_with(bucket, tmp_path):
    bucket.cuts = [0.4] * (address.TRIES + 1)
    with pytest.raises(FetchError):
        fetch(bucket, tmp_path)
    other = CONTENT[::-1]
    bucket.files["/file"] = other
    assert fetch(bucket, tmp_path).read_bytes() == other
    bucket.files["/file"] = other[:1000]  # shorter than what is there of another
    (tmp_path / "here" / "file").rename(tmp_path / "here" / "file.part")
    assert fetch(bucket, tmp_path).read_bytes() == other[:1000]


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_not_there_any_more(bucket, tmp_path, status):
    bucket.status = status
    says = rf"file is not in the bucket any more \({status}\): .* put file into .*by-hand by hand"
    with pytest.raises(FetchError, match=says) as error:
        fetch(bucket, tmp_path)
    assert error.value.reason == "missing"


def test_no_connection_and_offline(bucket, tmp_path, monkeypatch):
    file = PublishedFile("", "file", NOT_VERIFIED, 9, url="http://127.0.0.1:9/file")
    with pytest.raises(
        FetchError, match="there is no connection to the bucket: .*by-hand"
    ) as error:
        fetch_address(file, tmp_path, tmp_path / "by-hand", "the bucket", Progress())
    assert error.value.reason == "offline" and "Errno" not in str(error.value)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE forbids to fetch file.*by-hand"):
        fetch(bucket, tmp_path)
    assert not bucket.asked


def test_damage_on_the_way_is_seen(bucket, tmp_path):
    bucket.wrong_sum = True
    with pytest.raises(FetchError, match="was damaged on the way; it has been removed"):
        fetch(bucket, tmp_path)
    bucket.sums = False
    assert fetch(bucket, tmp_path).read_bytes() == CONTENT


def test_a_full_disk(bucket, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file.part").symlink_to("/dev/full")
    with pytest.raises(FetchError, match="no room on the disk for file") as error:
        fetch(bucket, tmp_path)
    assert error.value.reason == "no room"


def test_cancel_keeps_what_has_arrived(bucket, tmp_path):
    progress = Progress()
    progress.cancel()
    with pytest.raises(FetchError, match="cancelled"):
        fetch(bucket, tmp_path, progress)
    assert 0 < (tmp_path / "here" / "file.part").stat().st_size < len(CONTENT)
    assert fetch(bucket, tmp_path).read_bytes() == CONTENT


@pytest.fixture
def google(bucket, monkeypatch):
    """The two files of a Google model, small, on the server."""
    parts = {"tokenizer": "google-tokenizer", "transformer": "google-generator"}
    changed = {}
    for part, fixture in parts.items():
        file = getattr(GOOGLE, part)
        bucket.files[f"/{file.name}"] = (PARITY / fixture / "weights.msgpack").read_bytes()
        changed[part] = replace(file, url=f"{bucket.address}/{file.name}")
    monkeypatch.setitem(KNOWN_WEIGHTS, GOOGLE.name, replace(GOOGLE, **changed))
    # The reduced generator has 40 codes and 18 classes where the published one has 1,024 and 1,000.
    monkeypatch.setattr("maskgit_core.weights.families.transformers.IMAGENET_CLASSES", 18)
    monkeypatch.setattr("maskgit_core.weights.families.transformers.PUBLISHED_CODES", 40)
    return bucket


def test_google_by_name(google, tmp_path):
    google.cuts = [1.0, 0.5]
    loaded = load_checkpoint(fetch_weights("google-256"))
    assert type(loaded.transformer) is BertTransformer
    assert not (tmp_path / "home" / "maskgit-downloads").exists()
    asked = len(google.asked)
    fetch_weights("google-256")
    assert len(google.asked) == asked


def test_google_by_hand(google, tmp_path):
    google.status = 404
    with pytest.raises(FetchError) as error:
        fetch_weights("google-256")
    folder = Path(re.search(r"into (\S+) by hand", str(error.value))[1])
    folder.mkdir(parents=True)
    for file in GOOGLE.files:
        (folder / file.name).write_bytes(google.files[f"/{file.name}"])
    google.asked.clear()
    load_checkpoint(fetch_weights("google-256"))
    assert not google.asked
    assert all((folder / file.name).is_file() for file in GOOGLE.files)


def test_the_addresses_are_those_of_googles_notebook():
    for size in (256, 512):
        known = KNOWN_WEIGHTS[f"google-{size}"]
        for part, file in (("tokenizer", known.tokenizer), ("maskgit", known.transformer)):
            assert file.url == (
                "https://storage.googleapis.com/maskgit-public/checkpoints/"
                f"{part}_imagenet{size}_checkpoint"
            )
