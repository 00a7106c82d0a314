"""Bodies of requests: read whole and bounded before the page sees them, not too slowly."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from demo.hardening.json_bounds import TooMuchError, has_plain_ids, parse_bounded

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

GRACE_SECONDS = 20.0  # before the speed counts, and the longest pause
MIN_BYTES_PER_SECOND = 4 * 1024  # a tenth of a slow phone's
BUDGET = 320 * 1024**2  # bytes of JSON that may be read at once
BUDGET_OF_ONE = 80 * 1024**2
LARGE_BYTES = 512 * 1024  # a larger body is checked beside the event loop


class RefusedError(Exception):
    """The request is refused, with a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


TOO_LARGE = "The request is too large."
TOO_SLOW = "The request came too slowly."
NOT_UNDERSTOOD = "The request could not be understood."
BUSY = "Too much is being sent just now. Try again in a minute."


class Budget:
    """What all visitors together, and each alone, may have under way."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._most, self._most_of_one = most, most_of_one
        self._taken: Counter[str] = Counter()

    @contextmanager
    def hold(self, visitor: str) -> Iterator[Callable[[int], None]]:
        """Give a function that takes more; all of it is given back in the end.

        The function raises RefusedError where there is no more.
        """
        mine = 0

        def take(amount: int) -> None:
            nonlocal mine
            if (
                self._taken[visitor] + amount > self._most_of_one
                or self._taken.total() + amount > self._most
            ):
                raise RefusedError(503, BUSY)
            mine += amount
            self._taken[visitor] += amount

        try:
            yield take
        finally:
            self._taken[visitor] -= mine
            if not self._taken[visitor]:
                del self._taken[visitor]


def bounded(receive: Receive, most: int) -> Receive:
    """Bound a body in bytes and in time while it arrives.

    The function that is returned raises RefusedError.
    """
    began, arrived, ended = time.monotonic(), 0, False

    async def counted() -> Message:
        nonlocal arrived, ended
        if ended:
            return await receive()  # waits for the client to leave
        try:
            message = await asyncio.wait_for(receive(), GRACE_SECONDS)
        except TimeoutError:
            raise RefusedError(408, TOO_SLOW) from None
        arrived += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if arrived > most:
            raise RefusedError(413, TOO_LARGE)
        seconds = time.monotonic() - began
        if not ended and seconds > GRACE_SECONDS and arrived < MIN_BYTES_PER_SECOND * seconds:
            raise RefusedError(408, TOO_SLOW)
        return message

    return counted


async def read_json(
    receive: Receive, take: Callable[[int], None], change: Callable[[Any], Any]
) -> Receive:
    """Read a JSON body whole, check it, and return what hands it on.

    Args:
        receive: bounded.
        take: is told how many bytes came.
        change: of the parsed body; what it returns is handed on in its place.

    Raises:
        RefusedError: it is out of bounds, or no JSON.
    """
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        take(len(message.get("body", b"")))
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body = b"".join(pieces)
    del pieces
    if body:
        large = len(body) > LARGE_BYTES
        body = await asyncio.to_thread(_checked, body, change) if large else _checked(body, change)
    first = True

    async def replay() -> Message:
        nonlocal first, body
        if not first:
            return await receive()
        first, whole = False, body
        body = b""
        return {"type": "http.request", "body": whole, "more_body": False}

    return replay


def _checked(body: bytes, change: Callable[[Any], Any]) -> bytes:
    try:
        parsed = parse_bounded(body)
    except TooMuchError:
        raise RefusedError(413, TOO_LARGE) from None
    except ValueError:
        raise RefusedError(400, NOT_UNDERSTOOD) from None
    if not has_plain_ids(parsed):
        raise RefusedError(400, NOT_UNDERSTOOD)
    changed = change(parsed)
    return body if changed is None else json.dumps(changed).encode()
