"""Bounds on a JSON body, counted before anything parses it.

A parser makes an object of every pair of brackets and a number of every row of digits: a body of
four megabytes can keep it busy for half a minute. Text is cheap, so an image as base64 may be long;
everything else is counted.
"""

from __future__ import annotations

import json
import re
from typing import Any

LOOSE_BYTES = 256 * 1024  # of a body without its images; a page sends a few thousand
LONG_TEXT = 4096  # characters; a longer text must be base64 to count as an image
MAX_ELEMENTS = 20_000  # brackets, braces, commas and colons; a page sends a few hundred
MAX_DEPTH = 24
MAX_ESCAPES = 10_000
MAX_DIGITS = 400

_STRUCTURE = b"[]{},:"
_NOT_STRUCTURE = bytes(set(range(256)) - set(_STRUCTURE))
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_DATA_URL = re.compile(rb"data:image/[a-z0-9.+-]{1,32};base64,")
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ID_NAMES = ("session_hash", "event_id", "upload_id")


class TooMuchError(ValueError):
    """The body is out of bounds."""


def parse_bounded(body: bytes) -> Any:
    """Parse a JSON body that is within bounds.

    Raises:
        TooMuchError: it is not.
        ValueError: it is no JSON.
    """
    check_bounds(body)
    try:
        return json.loads(body)
    except RecursionError:
        raise TooMuchError("nested too deeply") from None


def check_bounds(body: bytes) -> None:
    """Count what a parser would have to make of a body.

    Raises:
        TooMuchError: too many elements, nested too deeply, too long outside of images, a number or
            too many escapes that are dear to read.
        ValueError: a text does not end.
    """
    at, loose, elements, depth, escapes = 0, 0, 0, 0, 0
    while at <= len(body):
        quote = body.find(b'"', at)
        outside = body[at : quote if quote >= 0 else len(body)]
        loose += len(outside)
        if loose > LOOSE_BYTES:
            raise TooMuchError("too long")
        if _LONG_NUMBER.search(outside):
            raise TooMuchError("a number is too long")
        structure = outside.translate(None, _NOT_STRUCTURE)
        elements += len(structure)
        if elements > MAX_ELEMENTS:
            raise TooMuchError("too many elements")
        for mark in structure:
            depth += (mark in b"[{") - (mark in b"]}")
            if depth > MAX_DEPTH:
                raise TooMuchError("nested too deeply")
        if quote < 0:
            return
        end, escapes = _text_end(body, quote + 1, escapes)
        if end - quote > LONG_TEXT and _is_base64(body[quote + 1 : end]):
            loose += 2
        else:
            loose += end - quote + 1
        at = end + 1


def _text_end(body: bytes, start: int, escapes: int) -> tuple[int, int]:
    """Index of the quote that ends a text, and the escaped quotes seen so far."""
    at = start
    while (end := body.find(b'"', at)) >= 0:
        behind = body[max(start, end - 64) : end]
        slashes = len(behind) - len(behind.rstrip(b"\\"))
        if slashes >= 64:
            raise TooMuchError("too many escapes")
        if slashes % 2 == 0:
            return end, escapes
        escapes += 1
        if escapes > MAX_ESCAPES:
            raise TooMuchError("too many escapes")
        at = end + 1
    raise ValueError("a text does not end")


def _is_base64(text: bytes) -> bool:
    start = _DATA_URL.match(text)
    return not text[start.end() if start else 0 :].translate(None, _BASE64)


def has_plain_ids(body: Any) -> bool:
    """Whether the ids in a parsed body are short and of letters, digits, - and _ (or not given)."""
    if not isinstance(body, dict):
        return False
    return all(body.get(name) is None or is_plain_id(body[name]) for name in _ID_NAMES)


def is_plain_id(text: Any) -> bool:
    """Whether an id is at most 64 characters of letters, digits, - and _."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None
