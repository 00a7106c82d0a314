"""Fairness between visitors: whose a job is, and in which order the jobs of several are served.

Visitors take turns. The queue itself holds whose turn it is: the first job's visitor is next, and
the jobs of who has been served go behind those of all others who wait by then. So nothing is kept
of a visitor who has no job here, and whoever comes waits for one job of each of the others at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gradio.context import LocalContext

from demo.hardening.visitors import visitor_key
from demo.serving.jobs import Job


def current_visitor() -> str:
    """The key of who caused the Gradio event that runs in this thread; empty outside of one."""
    # Gradio sets this for every function that it calls, and again for each step of a generator.
    request = LocalContext.request.get(None)
    return "" if request is None else visitor_key(request)


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
