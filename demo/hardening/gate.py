"""What may reach Gradio, and what every answer says: a small ASGI middleware.

Gradio serves many addresses that this page has no use for: a proxy, recordings, the state of
another session as a link, direct calls of every button. Only those that the page, `gradio_client`
and the documented functions need are let through, and only bodies that `bodies` has checked.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from gradio.utils import get_upload_folder

from demo.hardening import storage
from demo.hardening.answer import ALIAS, Answer
from demo.hardening.bodies import (
    BUDGET,
    BUDGET_OF_ONE,
    NOT_UNDERSTOOD,
    TOO_LARGE,
    Budget,
    RefusedError,
    bounded,
    read_json,
)
from demo.hardening.json_bounds import is_plain_id
from demo.hardening.visitors import visitor_of_scope

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_FILE_BYTES = 25 * 1024**2
# A photo and a mask as base64, and the rest of the request.
MAX_JSON_BYTES = 40 * 1024**2
MAX_SMALL_BYTES = 4 * 1024  # of a request that holds ids only
FORM_BYTES = 64 * 1024  # what surrounds the file in an upload
MAX_STREAMS, MAX_STREAMS_OF_ONE = 1024, 256  # a page holds two open
MAX_UPLOADS, MAX_UPLOADS_OF_ONE = 256, 6

UPLOAD = "/gradio_api/upload"
FILE = "/gradio_api/file="
DATA = "/gradio_api/queue/data"
_PAGE = r"""
    / | /config | /theme\.css | /favicon\.ico | /robots\.txt | /manifest\.json | /pwa_icon(/\d+)?
    | /(assets|static|svelte)/.+ | /healthz | /metrics
    | /gradio_api/(info|openapi\.json|app_id|user|login_check|startup-events|theme\.css)
    | /gradio_api/(upload|upload_progress|cancel|reset|queue/(join|data|status))
    | /gradio_api/heartbeat/[^/]+
"""
_SMALL = re.compile(r"/gradio_api/(cancel|reset)/?")
_STREAM = re.compile(
    r"/gradio_api/(queue/data|upload_progress|heartbeat/[^/]+|call(/v2)?/[^/]+/[^/]+)/?"
)
_ID_IN_PATH = re.compile(r"/gradio_api/(heartbeat|call/[^/]+|call/v2/[^/]+)/([^/]+)/?")
_IDS_IN_QUERY = ("session_hash", "upload_id", "event_id")
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
NOT_SERVED = "There is nothing here."
WRONG_SITE = "Requests from the page of another site are not taken."
WRONG_NAME = "This page is not served under that name."


class Gate:
    """The middleware.

    Args:
        app: what is behind it.
        functions: names of the functions for programs that may be called.
        mcp: whether the address of the MCP server is open.
        names: host names under which the page answers; None is any. A page on a local address
            answers to no other, or a site could have its name resolved to this machine.
    """

    def __init__(
        self,
        app: Any,
        *,
        functions: Iterable[str] = (),
        mcp: bool = False,
        names: Collection[str] | None = None,
    ) -> None:
        self._app, self._names = app, names
        # `predict` is how clients call what does not queue; the number in its body says what.
        words = "|".join(re.escape(name) for name in functions) or r"\b\B"
        calls = rf"| /gradio_api/(run|api)/(predict|{words})"
        calls += rf"| /gradio_api/call(/v2)?/({words})(/[^/]+)?"
        more = r"| /gradio_api/mcp(/.*)?" if mcp else ""
        self._open = re.compile(f"({_PAGE}{calls}{more})/?", re.VERBOSE)
        self._json = Budget(BUDGET, BUDGET_OF_ONE)
        self._streams = Budget(MAX_STREAMS, MAX_STREAMS_OF_ONE)
        self._uploads = Budget(MAX_UPLOADS, MAX_UPLOADS_OF_ONE)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or hand it on with a bounded body and the headers added."""
        if scope["type"] != "http":
            # Gradio needs the lifespan; nothing here speaks through web sockets.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = Answer(send)
        try:
            self._check(scope)
            await self._serve(_cleaned(scope), receive, answer)
        except RefusedError as error:
            if answer.started:
                raise
            await answer.refuse(error.status, error.sentence)
        except Exception as error:
            log.warning("a request failed: %s", type(error).__name__)
            log.debug("a request failed", exc_info=True)
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            if full:
                await asyncio.to_thread(storage.FILES.give_back, declared_bytes(scope))
            if answer.started:
                raise
            await answer.refuse(*((507, storage.NO_ROOM) if full else (400, NOT_UNDERSTOOD)))

    def _check(self, scope: Message) -> None:
        """Refuse what is wrong by its head alone."""
        path, headers = scope["path"], _headers(scope)
        host = headers.get("host", "")
        if self._names is not None and host_name(host) not in self._names:
            raise RefusedError(421, WRONG_NAME)
        origin = headers.get("origin")
        if scope["method"] == "POST" and origin is not None and not _same_site(origin, headers):
            raise RefusedError(403, WRONG_SITE)
        is_file = path.startswith(FILE)
        if not (may_be_read(path.removeprefix(FILE)) if is_file else self._open.fullmatch(path)):
            raise RefusedError(404, NOT_SERVED)
        ids = [text for name, text in _query(scope) if name in _IDS_IN_QUERY]
        if match := _ID_IN_PATH.fullmatch(path):
            ids.append(match[2])
        if not all(map(is_plain_id, ids)):
            raise RefusedError(400, NOT_UNDERSTOOD)

    async def _serve(self, scope: Message, receive: Receive, answer: Answer) -> None:
        path, visitor = scope["path"].rstrip("/"), visitor_of_scope(scope)
        if path.startswith(FILE):
            answer.headers["Cache-Control"] = "private, no-store"
            scope = _with_path(scope, FILE + real_path(path.removeprefix(FILE)))
            await self._app(scope, bounded(receive, 0), answer.send)
            return
        if path == DATA and not _is_known_session(scope):
            raise RefusedError(404, NOT_SERVED)  # Gradio would answer with an error in the log
        if scope["method"] == "GET" and _STREAM.fullmatch(path):
            with self._streams.hold(visitor) as take:
                take(1)
                await self._app(scope, bounded(receive, MAX_SMALL_BYTES), answer.send)
            return
        if scope["method"] != "POST":
            await self._app(scope, bounded(receive, MAX_SMALL_BYTES), answer.send)
            return
        if path == UPLOAD:
            await self._upload(scope, receive, answer, visitor)
            return
        most = MAX_SMALL_BYTES if _SMALL.fullmatch(path) else MAX_JSON_BYTES
        if declared_bytes(scope) > most:
            raise RefusedError(413, TOO_LARGE)
        with self._json.hold(visitor) as take:
            checked = await read_json(bounded(receive, most), take, with_real_paths)
            await self._app(scope, checked, answer.send)

    async def _upload(self, scope: Message, receive: Receive, answer: Answer, visitor: str) -> None:
        most = MAX_FILE_BYTES + FORM_BYTES
        if declared_bytes(scope) > most:
            raise RefusedError(413, TOO_LARGE)
        with self._uploads.hold(visitor) as take:
            take(1)
            size = declared_bytes(scope) or MAX_FILE_BYTES
            await asyncio.to_thread(storage.FILES.make_room, visitor, size)
            await self._app(scope, bounded(receive, most), answer.send)
        for path in answer.uploaded:
            storage.FILES.add(visitor, Path(path))


def _headers(scope: Message) -> dict[str, str]:
    return {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in scope.get("headers", [])}


def _query(scope: Message) -> list[tuple[str, str]]:
    text = scope.get("query_string", b"").decode("latin-1")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise RefusedError(400, NOT_UNDERSTOOD) from None


def _is_known_session(scope: Message) -> bool:
    """Whether Gradio has messages for the session that a stream is asked of."""
    session = dict(_query(scope)).get("session_hash", "")
    app = scope.get("app")
    return app is None or session in app.get_blocks()._queue.pending_messages_per_session


def host_name(host: str) -> str:
    """A Host header without its port, in small letters."""
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _same_site(origin: str, headers: dict[str, str]) -> bool:
    """Whether a request comes from a page of this server, by the name that the browser knows."""
    try:
        site = urlsplit(origin).netloc.lower()
    except ValueError:
        return False
    names = (headers.get("host", "").lower(), headers.get("x-forwarded-host", "").lower())
    return bool(site) and site in names


def _cleaned(scope: Message) -> Message:
    """Without headers that only a proxy may send, where no proxy sent the request.

    The server marks a client whose address it took from a trusted proxy with port 0.
    """
    client = scope.get("client")
    proxied = os.environ.get("SPACE_ID") or (client is not None and client[1] == 0)
    if proxied:
        return scope
    kept = [pair for pair in scope["headers"] if pair[0].lower() not in _PROXY_HEADERS]
    return {**scope, "headers": kept}


_PROXY_HEADERS = (b"x-forwarded-host", b"x-forwarded-proto", b"x-gradio-server")


def _with_path(scope: Message, path: str) -> Message:
    return {**scope, "path": path, "raw_path": quote(path).encode()}


def real_path(path: str) -> str:
    """The path of a file of which a visitor was told `ALIAS` and the rest."""
    if not path.startswith(ALIAS + "/"):
        return path
    return str(Path(get_upload_folder())) + path.removeprefix(ALIAS)


def with_real_paths(body: Any) -> Any:
    """A parsed body with the paths of files as they are here; None where there are none."""
    changed = False
    pending = [body]
    while pending:
        item = pending.pop()
        for key, value in list(item.items() if isinstance(item, dict) else enumerate(item)):
            if isinstance(value, dict | list):
                pending.append(value)
            elif isinstance(value, str) and value.startswith(ALIAS + "/"):
                item[key], changed = real_path(value), True
    return body if changed else None


def declared_bytes(scope: Message) -> int:
    """Length of the body as the client states it; 0 where it says nothing."""
    for name, text in scope.get("headers", []):
        if name.lower() == b"content-length" and text.isdigit():
            return int(text)
    return 0


def may_be_read(path: str) -> bool:
    """Whether a visitor may fetch this file: results only, never an upload or an address.

    The folder of each result has an unguessable name, which is told to nobody but its visitor.
    """
    if not path.startswith(ALIAS + "/"):
        return False
    try:
        found = Path(unquote(real_path(path))).resolve()
        return found.is_relative_to(storage.kept_folder().resolve()) and found.is_file()
    except (OSError, ValueError, RuntimeError):
        return False
