"""What may reach Gradio, and what every answer says: a small ASGI middleware.

Gradio serves many addresses that this page has no use for: a proxy, recordings, the state of
another session as a link, direct calls of every button. Only those that the page, `gradio_client`
and the documented functions need are let through.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException

from demo.hardening import storage

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_FILE_BYTES = 25 * 1024**2
# A photo and a mask as base64, and the rest of the request.
MAX_JSON_BYTES = 40 * 1024**2
FORM_BYTES = 64 * 1024  # what surrounds the file in an upload

# Hugging Face shows a Space in a frame on its own pages; no other site may.
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Content-Security-Policy": (
        "frame-ancestors 'self' https://huggingface.co; object-src 'none'; base-uri 'self'"
    ),
}

UPLOAD = "/gradio_api/upload"
FILE = "/gradio_api/file="
_PAGE = r"""
    / | /config | /theme\.css | /favicon\.ico | /robots\.txt | /manifest\.json | /pwa_icon(/\d+)?
    | /(assets|static|svelte)/.+ | /healthz | /metrics
    | /gradio_api/(info|openapi\.json|app_id|user|login_check|startup-events|theme\.css)
    | /gradio_api/(upload|upload_progress|cancel|reset|queue/(join|data|status))
    | /gradio_api/heartbeat/[^/]+
"""
NOT_SERVED = "There is nothing here."
NOT_UNDERSTOOD = "The request could not be understood."
TOO_LARGE = "The request is too large."


class Gate:
    """The middleware.

    Args:
        app: what is behind it.
        functions: names of the functions for programs that may be called.
        mcp: whether the address of the MCP server is open.
    """

    def __init__(self, app: Any, *, functions: Iterable[str] = (), mcp: bool = False) -> None:
        self._app = app
        # `predict` is how clients call what does not queue; the number in its body says what.
        names = "|".join(re.escape(name) for name in functions) or r"\b\B"
        calls = rf"| /gradio_api/(run|api)/(predict|{names})"
        calls += rf"| /gradio_api/call(/v2)?/({names})(/[^/]+)?"
        more = r"| /gradio_api/mcp(/.*)?" if mcp else ""
        self._open = re.compile(f"({_PAGE}{calls}{more})/?", re.VERBOSE)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on with a bounded body and the headers added."""
        if scope["type"] != "http":
            # Gradio needs the lifespan; nothing here speaks through web sockets.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return None
        answer = _Answer(send)
        path = scope["path"]
        try:
            is_file = path.startswith(FILE)
            if not (may_be_read(path.removeprefix(FILE)) if is_file else self._allows(path)):
                return await answer.refuse(404, NOT_SERVED)
            if is_file:
                answer.headers["Cache-Control"] = "private, no-store"
            most = MAX_JSON_BYTES if path.rstrip("/") != UPLOAD else MAX_FILE_BYTES + FORM_BYTES
            if declared_bytes(scope) > most:
                return await answer.refuse(413, TOO_LARGE)
            if path.rstrip("/") == UPLOAD:
                await asyncio.to_thread(make_room)
            await self._app(scope, _bounded(receive, most), answer.send)
        except Exception as error:
            log.warning("a request failed: %s", type(error).__name__)
            log.debug("a request failed", exc_info=True)
            if answer.started:
                raise
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                return await answer.refuse(507, storage.NO_ROOM)
            await answer.refuse(400, NOT_UNDERSTOOD)

    def _allows(self, path: str) -> bool:
        return self._open.fullmatch(path) is not None


class _Answer:
    """Adds the headers to an answer, whoever gives it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.headers = dict(SECURITY_HEADERS)
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            ours = [(name.lower().encode(), text.encode()) for name, text in self.headers.items()]
            names = {name for name, _ in ours}
            others = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
            message = {**message, "headers": [*others, *ours]}
        await self._send(message)

    async def refuse(self, status: int, sentence: str) -> None:
        body = json.dumps({"detail": sentence}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def declared_bytes(scope: Message) -> int:
    """Length of the body as the client states it; 0 where it says nothing."""
    for name, text in scope.get("headers", []):
        if name.lower() == b"content-length" and text.isdigit():
            return int(text)
    return 0


def _bounded(receive: Receive, most: int) -> Receive:
    """Count a body while it arrives, for clients that do not state its length."""
    arrived = 0

    async def counted() -> Message:
        nonlocal arrived
        message = await receive()
        arrived += len(message.get("body", b""))
        if arrived > most:
            raise HTTPException(413, TOO_LARGE)
        return message

    return counted


def may_be_read(path: str) -> bool:
    """Whether a visitor may fetch this file: results only, never an upload or an address.

    The folder of each result has an unguessable name, which is told to nobody but its visitor.
    """
    try:
        file = Path(unquote(path)).resolve()
        return file.is_relative_to(storage.kept_folder().resolve()) and file.is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def make_room() -> None:
    """Remove the oldest files where one more upload might be too much."""
    storage.sweep(
        Path(get_upload_folder()),
        keep_seconds=float("inf"),
        most_bytes=storage.MOST_BYTES - MAX_FILE_BYTES,
    )
