"""A local server that speaks the part of the Hub's HTTP API that downloads and uploads use.

What it sends for a large file is what huggingface-hub 2.4.0 reads (`get_hf_file_metadata` in its
file_download.py, `parse_xet_file_data_from_response` in its utils/_xet.py): the SHA-256 in
`X-Linked-ETag`, another hash of 64 digits in `X-Xet-Hash`, and in `Link` where a token is.
The content then comes over the Xet protocol, as hf-xet 1.8.0 was seen to ask for it: the second
version of the reconstruction is not there (404), the first is a list of ranges of one stored
object, which is chunks of at most 64 KiB with a head of eight bytes each. So nothing of the client
has to be replaced. With HF_HUB_DISABLE_XET the same file comes over HTTP from `Location`.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest
from huggingface_hub.utils._xet import XET_CONNECTION_INFO_CACHE, abort_xet_session

RUNNER = str(Path(__file__).with_name("with_fake_hub.py"))
COMMIT = "c0ffee" + "0" * 34
CHUNK = 1 << 16


def xet_hash(content: bytes) -> str:
    """Return what stands for the Xet hash of a file: 64 digits that are not its SHA-256."""
    return hashlib.sha256(b"xet" + content).hexdigest()


def xorb(content: bytes) -> bytes:
    """Return a file as the Xet store keeps it: chunks, none of them compressed."""
    stored = b""
    for start in range(0, len(content), CHUNK):
        chunk = content[start : start + CHUNK]
        size = len(chunk).to_bytes(3, "little")
        stored += b"\0" + size + b"\0" + size + chunk
    return stored


class FakeHub:
    """Repositories in memory, and the faults that the next answers shall have.

    Attributes:
        files: (repository, path) -> content.
        status: (repository, path) -> (HTTP status, error word) instead of the content.
        cut: path -> share after which each of the next downloads breaks off.
        swapped: path -> content that is sent in place of the announced one.
        held: content is sent when this is set, which it is at first.
        requests: method and address of every request so far.
        created: what was asked for of every repository that was made.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.status: dict[tuple[str, str], tuple[int, str]] = {}
        self.cut: dict[str, list[float]] = {}
        self.swapped: dict[str, bytes] = {}
        self.held = threading.Event()
        self.held.set()
        self.requests: list[str] = []
        self.created: list[dict[str, object]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Stay silent."""

            def do_HEAD(self) -> None:
                hub.serve(self)

            do_GET = do_HEAD

            def do_POST(self) -> None:
                hub.take(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        # Another host name, as the real Hub's: the client must take the hash from the redirect.
        self.content_address = f"http://localhost:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str):
        """Send a whole answer; a header's underscores stand for hyphens."""
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer HEAD and GET; a large file is redirected to the address of its content."""
        path = unquote(urlsplit(request.path).path)
        self.requests.append(f"{request.command} {path}")
        if match := re.fullmatch(r"/content/(\w+)/(.+)", path):
            return self.send_content(request, match[2])
        if match := re.fullmatch(r"/(v1/reconstructions|xorb)/(\w+)", path):
            return self.send_xet(request, match[1], match[2])
        if path.startswith("/v2/"):
            return self.answer(request, 404, b"")
        kinds = "/api/(?:models|spaces|datasets)"
        if re.fullmatch(kinds + r"/[^/]+/[^/]+/xet-read-token/\w+", path):
            token = {"X_Xet_Cas_Url": self.address, "X_Xet_Access_Token": "token"}
            return self.answer(request, 200, b"", **token, X_Xet_Token_Expiration="99999999999")
        if match := re.fullmatch(kinds + r"/([^/]+/[^/]+)/tree/(?:main|" + COMMIT + ")", path):
            found = [
                {
                    "type": "file",
                    "path": name,
                    "oid": COMMIT,
                    "size": len(content),
                    "lfs": {
                        "oid": hashlib.sha256(content).hexdigest(),
                        "size": len(content),
                        "pointerSize": 100,
                    },
                }
                for (repo, name), content in self.files.items()
                if repo == match[1]
            ]
            return self.answer(request, 200, json.dumps(found).encode())
        if match := re.fullmatch(kinds + r"/([^/]+/[^/]+)/revision/([^/]+)", path):
            if not any(repo == match[1] for repo, _ in self.files):
                return self.answer(request, 404, b"", X_Error_Code="RepoNotFound")
            if match[2] not in ("main", COMMIT):
                return self.answer(request, 404, b"", X_Error_Code="RevisionNotFound")
            facts = {"id": match[1], "sha": COMMIT, "private": False, "disabled": False}
            facts |= {"downloads": 0, "likes": 0, "tags": [], "gated": False, "siblings": []}
            return self.answer(request, 200, json.dumps(facts).encode())
        match = re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not match:
            return self.answer(request, 404, b"", X_Error_Code="RepoNotFound")
        return self.resolve(request, *match.groups())

    def resolve(self, request: BaseHTTPRequestHandler, repo: str, revision: str, name: str) -> None:
        """Answer for one file: the content of a small one, of a large one where that is."""
        if (repo, name) in self.status:
            status, word = self.status[repo, name]
            return self.answer(request, status, b"", X_Error_Code=word, X_Error_Message=word)
        if not any(repo == known for known, _ in self.files):
            return self.answer(request, 404, b"", X_Error_Code="RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.answer(request, 404, b"", X_Error_Code="RevisionNotFound")
        if (repo, name) not in self.files:
            return self.answer(
                request, 404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT
            )
        content = self.files[repo, name]
        if name.endswith(".json"):
            etag = hashlib.sha1(content).hexdigest()
            return self.answer(request, 200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
        etag = hashlib.sha256(content).hexdigest()
        token = f"{self.address}/api/models/{repo}/xet-read-token/{COMMIT}"
        return self.answer(
            request,
            302,
            b"",
            X_Xet_Hash=xet_hash(content),
            Link=f'<{token}>; rel="xet-auth"',
            ETag=f'"{etag}"',
            X_Linked_Etag=f'"{etag}"',
            X_Linked_Size=str(len(content)),
            X_Repo_Commit=COMMIT,
            Location=f"{self.content_address}/content/{etag}/{repo}/{name}",
        )

    def send_xet(self, request: BaseHTTPRequestHandler, what: str, name: str) -> None:
        """Send how a file of this Xet hash is put together, or its content; or break off."""
        found = ((path, c) for (_, path), c in self.files.items() if xet_hash(c) == name)
        path, content = next(found)
        content = self.swapped.get(path, content)
        stored = xorb(content)
        if what == "xorb":
            cuts = self.cut.get(path)
            request.send_response(206)
            request.send_header("Content-Range", f"bytes 0-{len(stored) - 1}/{len(stored)}")
            request.send_header("Content-Length", str(len(stored)))
            request.end_headers()
            self.held.wait(30)
            if cuts:
                request.close_connection = True
                stored = stored[: int(len(stored) * cuts.pop(0))]
            request.wfile.write(stored)
            return
        chunks = {"start": 0, "end": -(-len(content) // CHUNK)}
        where = {"range": chunks, "url_range": {"start": 0, "end": len(stored) - 1}}
        reply = {
            "offset_into_first_range": 0,
            "terms": [{"hash": name, "unpacked_length": len(content), "range": chunks}],
            "fetch_info": {name: [{**where, "url": f"{self.address}/xorb/{name}"}]},
        }
        self.answer(request, 200, json.dumps(reply).encode(), Content_Type="application/json")

    def send_content(self, request: BaseHTTPRequestHandler, place: str) -> None:
        """Send a file or the asked part of it, or break off on the way."""
        owner, name, path = place.split("/", 2)
        content = self.swapped.get(path, self.files[f"{owner}/{name}", path])
        start = 0
        if match := re.match(r"bytes=(\d+)-", request.headers.get("Range", "")):
            start = int(match[1])
        body = content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        if request.command == "HEAD":
            return
        self.held.wait(30)
        cuts = self.cut.get(path)
        if cuts:
            request.wfile.write(body[: int(len(content) * cuts.pop(0))])
            request.close_connection = True
            return
        request.wfile.write(body)

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """Answer the requests of an upload."""
        path = urlsplit(request.path).path
        self.requests.append(f"POST {path}")
        body = read_body(request)
        if not path.startswith("/api/"):  # the native transfer tells how fast it was
            return self.answer(request, 200, b"")
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.created.append(asked)
            url = f"{self.address}/{asked.get('organization', 'me')}/{asked['name']}"
            return self.answer(request, 200, json.dumps({"url": url}).encode())
        if path == "/api/validate-yaml":
            return self.answer(request, 200, b'{"errors": [], "warnings": []}')
        repo = re.sub("^/api/(models|spaces)/", "", path).rpartition("/")[0].rpartition("/")[0]
        if "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(request, 200, json.dumps({"files": files}).encode())
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                self.files[repo, value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del self.files[repo, entry["value"]["path"]]
        reply = {
            "success": True,
            "commitOid": COMMIT,
            "commitUrl": f"{self.address}/{repo}/commit/{COMMIT}",
        }
        return self.answer(request, 200, json.dumps(reply).encode())


def read_body(request: BaseHTTPRequestHandler) -> bytes:
    """Return the body of a request, sent whole or in chunks."""
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    body = b""
    while size := int(request.rfile.readline().strip() or b"0", 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


def facts(hub: FakeHub) -> dict[str, tuple[str, int]]:
    """Return path -> (SHA-256, bytes) of every file."""
    return {path: (hashlib.sha256(c).hexdigest(), len(c)) for (_, path), c in hub.files.items()}


def process_environment(hub: FakeHub, folder: Path) -> dict[str, str]:
    """Return the environment of a process that `with_fake_hub` runs in, with an empty cache."""
    root = Path(__file__).parent.parent
    left_out = ("HF_", "HUGGING", "MASKGIT_")
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(left_out)},
        "FAKE_HUB_FILES": json.dumps(facts(hub)),
        "HF_HOME": str(folder),
        "HF_ENDPOINT": hub.address,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
    }


def talk_to(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let the Hub's client know this server only, and an empty cache."""
    constants = huggingface_hub.constants
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # The native transfer reads these when a session begins, and tries again for minutes else.
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "2")
    abort_xet_session()
    XET_CONNECTION_INFO_CACHE.clear()


@contextlib.contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Run a server in a thread."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
