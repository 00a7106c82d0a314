"""A local server that speaks the part of the Hub's HTTP API that downloads and uploads use."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

COMMIT = "c0ffee" + "0" * 34


class FakeHub:
    """Repositories in memory, and the faults that the next answers shall have.

    Attributes:
        files: (repository, path) -> content.
        status: (repository, path) -> (HTTP status, error word) instead of the content.
        cut: path -> share after which each of the next downloads breaks off.
        swapped: path -> content that is sent in place of the announced one.
        requests: method and address of every request so far.
        created: what was asked for of every repository that was made.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.status: dict[tuple[str, str], tuple[int, str]] = {}
        self.cut: dict[str, list[float]] = {}
        self.swapped: dict[str, bytes] = {}
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
        kinds = "/api/(?:models|spaces|datasets)"
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
        repo, revision, name = match.groups()
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
        return self.answer(
            request,
            302,
            b"",
            ETag=f'"{etag}"',
            X_Linked_Etag=f'"{etag}"',
            X_Linked_Size=str(len(content)),
            X_Repo_Commit=COMMIT,
            Location=f"{self.content_address}/content/{etag}/{repo}/{name}",
        )

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
