"""Fairness between visitors: whose a job is, and in which order the jobs of several are served.

Visitors take turns. The queue itself holds whose turn it is: the first job's visitor is next, and
the jobs of who has been served go behind those of all others who wait by then. So nothing is kept
of a visitor who has no job here, and whoever comes waits for one job of each of the others at most.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from gradio.context import LocalContext

from demo.serving.jobs import Job

_SECRET = secrets.token_bytes(32)  # of this process: its keys mean nothing to anybody else


def current_visitor() -> str:
    """The key of who caused the Gradio event that runs in this thread; empty outside of one."""
    # Gradio sets this for every function that it calls, and again for each step of a generator.
    request = LocalContext.request.get(None)
    return "" if request is None else visitor_key(request)


def visitor_key(request: Any) -> str:
    """A keyed hash of a client's address, or of its session where it has no address.

    A Space stands behind a proxy that appends the client to X-Forwarded-For; what comes before may
    be the client's own invention. Elsewhere the header is not read here: the server reads it from
    the proxies that are named in FORWARDED_ALLOW_IPS, by default this machine.

    Args:
        request: a `gr.Request`.

    Returns:
        32 hexadecimal digits.
    """
    host = request.client.host if request.client else ""
    if os.environ.get("SPACE_ID"):
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        host = forwarded.rpartition(",")[2].strip() or host
    name = f"address {_household(host)}" if host else f"session {request.session_hash}"
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


def behind(waiting: list[Job], served: Iterable[Job]) -> list[Job]:
    """The queue once these jobs have been served: those of the same visitors go to its end."""
    for visitor in [job.visitor for job in served]:
        waiting = sorted(waiting, key=lambda job: job.visitor == visitor)
    return waiting


def next_batch(waiting: list[Job], most_images: int) -> tuple[list[Job], list[Job]]:
    """The jobs that are served next, and the queue that is left.

    Args:
        waiting: with at least one job.
        most_images: so many images may share a batch; jobs that may share it join in turn.
    """
    first = waiting[0]
    batch, rest = [first], behind(waiting[1:], [first])
    room, key = most_images - first.images, first.together

    def fits(job: Job) -> bool:
        return job.images <= room and job.together == key

    while key is not None and (job := next(filter(fits, rest), None)):
        room -= job.images
        batch.append(job)
        rest.remove(job)
        rest = behind(rest, [job])
    return batch, rest


def service_order(waiting: list[Job], most_images: int) -> Iterator[Job]:
    """Yield the jobs of a queue as they will be served if nobody comes or leaves."""
    while waiting:
        batch, waiting = next_batch(waiting, most_images)
        yield from batch
