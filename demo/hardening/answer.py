"""What every answer says, whoever gives it, and what it does not say."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from demo.hardening.bodies import NOT_UNDERSTOOD

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

# Hugging Face shows a Space in a frame on its own pages; no other site may.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Content-Security-Policy": (
        "frame-ancestors 'self' https://huggingface.co; object-src 'none'; base-uri 'self'"
    ),
}

# What visitors are told in place of the folder of their files.
ALIAS = "/files"


class Answer:
    """Adds the headers to an answer, whoever gives it, and takes out what is nobody's business."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.headers = dict(SECURITY_HEADERS)
        self.started = False
        self.uploaded: list[str] = []
        self._kind = ""
        self._status = 0

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.started, self._status = True, message["status"]
            pairs = message.get("headers", [])
            self._kind = {n.lower(): v for n, v in pairs}.get(b"content-type", b"").decode()
            ours = [(name.lower().encode(), text.encode()) for name, text in self.headers.items()]
            names = {name for name, _ in ours}
            if self._status == 422 or "json" in self._kind:
                names.add(b"content-length")  # what is sent may have another
            kept = [pair for pair in pairs if pair[0].lower() not in names]
            await self._send({**message, "headers": [*kept, *ours]})
        elif message["type"] == "http.response.body":
            await self._send({**message, "body": self._clean(message)})
        else:
            await self._send(message)

    def _clean(self, message: Message) -> bytes:
        body = bytes(message.get("body", b""))
        if self._status == 422:
            # The framework repeats what was sent, however much that was.
            return b"" if message.get("more_body") else json.dumps(_detail(NOT_UNDERSTOOD)).encode()
        if "json" in self._kind or "event-stream" in self._kind:
            folder = str(Path(get_upload_folder()))
            if body.startswith(b'["') and self._kind.startswith("application/json"):
                self.uploaded = _paths(body, folder)
            body = body.replace(json.dumps(folder)[1:-1].encode(), ALIAS.encode())
        return body

    async def refuse(self, status: int, sentence: str) -> None:
        """Answer with a sentence."""
        body = json.dumps(_detail(sentence)).encode()
        headers = [(b"content-type", b"application/json")]
        if status in (408, 413):
            headers.append((b"connection", b"close"))  # the rest of the body is not waited for
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        self._status = 0
        await self._send({"type": "http.response.body", "body": body})


def _detail(sentence: str) -> dict[str, str]:
    return {"detail": sentence}


def _paths(body: bytes, folder: str) -> list[str]:
    """Paths of files that an upload's answer lists."""
    try:
        found = json.loads(body)
    except ValueError:
        return []
    return [path for path in found if isinstance(path, str) and path.startswith(folder)]
