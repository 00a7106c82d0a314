"""Who a request is from: a key that tells visitors apart and nothing else."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
from collections.abc import Iterable
from typing import Any

_SECRET = secrets.token_bytes(32)  # of this process: its keys mean nothing to anybody else


def visitor_key(request: Any) -> str:
    """A keyed hash of a client's address, or of its session where it has no address.

    A Space stands behind a proxy that appends the client to X-Forwarded-For; what comes before may
    be the client's own invention. Elsewhere the header is not read here: the server reads it from
    the proxies that are named in FORWARDED_ALLOW_IPS, by default this machine.

    Args:
        request: a `gr.Request`, or one of Starlette's.

    Returns:
        32 hexadecimal digits.
    """
    host = request.client.host if request.client else ""
    forwarded = request.headers.getlist("x-forwarded-for")
    return _key(host, forwarded, getattr(request, "session_hash", None) or "")


def visitor_of_scope(scope: Any) -> str:
    """`visitor_key` of an ASGI request."""
    client = scope.get("client")
    forwarded = [
        text.decode("latin-1")
        for name, text in scope.get("headers", [])
        if name.lower() == b"x-forwarded-for"
    ]
    return _key(client[0] if client else "", forwarded)


def _key(host: str, forwarded: Iterable[str], session: str = "") -> str:
    if os.environ.get("SPACE_ID"):
        host = ",".join(forwarded).rpartition(",")[2].strip() or host
    name = f"address {_household(host)}" if host else f"session {session}"
    return hashlib.blake2b(name.encode(), key=_SECRET, digest_size=16).hexdigest()


def _household(host: str) -> str:
    """An address without the part that an IPv6 client may choose as it likes."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.ip_network((address.packed, 64), strict=False))
