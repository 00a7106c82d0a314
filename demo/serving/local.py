"""Computing on this machine: one thread, equal requests decoded as one batch.

A large batch is split between the cores. Each image has its own seed and label, so it is the same
image as alone. A visitor who leaves is dropped from the batch before its next step.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch

from demo.serving import jobs
from demo.serving.jobs import Job, JobFailed
from demo.serving.metrics import Metrics
from demo.serving.models import ModelHolder
from demo.serving.one_thread import in_one_thread
from demo.serving.queue import MAX_BATCH_IMAGES, MAX_WAITING, STOPPING, JobQueue
from demo.serving.request import Request
from demo.serving.steps import (
    Decoded,
    DecodedStep,
    LatePictures,
    check_time,
    decoded_steps,
    fill_seconds,
    part_of,
)
from demo.settings import RequestError
from maskgit_core.decoding.previews import LivePictures
from maskgit_core.devices.malloc import give_back_freed_memory
from maskgit_core.devices.threads import side_by_side

log = logging.getLogger(__name__)

MIN_PART_IMAGES = 2  # smaller parts are faster together
BROKEN = "The server has a problem and cannot make images just now. Try again in some minutes."
TIDY_SECONDS = 2.0  # more often, small jobs would have each page cleared for them again and again


class LocalRunner:
    """Computes the jobs of visitors in turn; see `runner.Runner`.

    Args:
        models: holds the model.
        max_waiting, max_batch_images: as in `JobQueue`.
        batching: off, every job is decoded alone.
        metrics: gets each job that ends.
    """

    concurrency: int | None = None  # of the page's events: all of them may wait here

    def __init__(
        self,
        models: ModelHolder,
        *,
        max_waiting: int = MAX_WAITING,
        max_batch_images: int = MAX_BATCH_IMAGES,
        batching: bool = True,
        metrics: Metrics | None = None,
    ) -> None:
        self.models = models
        self.queue = JobQueue(
            max_waiting=max_waiting,
            max_batch_images=max_batch_images if batching else 0,
            metrics=metrics,
        )
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._tidy_at = 0.0

    @property
    def metrics(self) -> Metrics:
        """Counters of the jobs that have ended."""
        return self.queue.metrics

    @property
    def num_waiting(self) -> int:
        """Jobs in the queue."""
        return len(self.queue.waiting)

    @property
    def num_working(self) -> int:
        """Jobs in the batch that is computed now."""
        return sum(job.goes_on for job in self.queue.working)

    # ---- what the page calls ---------------------------------------------------------------------

    def decode(self, request: Request) -> Iterator[Decoded]:
        """Yield the request's place while it waits, and its steps; see `Job.follow`."""
        return self._join(request, request.kind, request.model).follow()

    def call(self, kind: str, function: Callable[[], Any], *, refusable: bool = True) -> Any:
        """Return a function's result, computed alone in its turn."""
        return list(self.watch(kind, function, refusable=refusable))[-1]

    def watch(
        self, kind: str, function: Callable[[], Any], *, refusable: bool = True
    ) -> Iterator[Any]:
        """Yield a `Place` now and then while a function waits for its turn, then its result."""
        yield from self._join(function, kind, self.models.name, refusable=refusable).follow()

    def close(self) -> None:
        """End all jobs, each with a sentence for its visitor, and take no more."""
        self.queue.end_all(STOPPING, close=True)

    def _join(self, task: jobs.Task, kind: str, model: str, **options: Any) -> Job:
        job = self.queue.join(task, kind, model, **options)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, daemon=True, name="model")
                self._thread.start()
        return job

    # ---- the thread ------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            self._serve_one()

    def _serve_one(self) -> None:
        batch = self.queue.take()
        try:
            with _errors_reported(batch):
                if batch:
                    self._compute(batch)
        finally:
            self.queue.served()
            if self.metrics.failing:
                self.queue.end_all(BROKEN)  # they would wait for a minute and fail as well
            self._tidy()

    def _tidy(self) -> None:
        now = time.monotonic()
        if now >= self._tidy_at:
            give_back_freed_memory()
            self._tidy_at = now + TIDY_SECONDS

    def _compute(self, batch: list[Job]) -> None:
        request, function = batch[0].request, batch[0].function
        if function is not None:
            batch[0].deliver(function())
            batch[0].end(jobs.DONE)
        if request is None:
            return
        model = self.models.expect(request.model)
        self.metrics.count_batch(len(batch))
        if request.together is None:
            self._decode_alone(model, batch[0], request)
        else:
            parts = _parts(batch, model)
            side_by_side([partial(self._decode_part, model, part) for part in parts])

    def _decode_alone(self, model: Any, job: Job, request: Request) -> None:
        made = False
        for item in decoded_steps(model, request):
            if not _in_time(job):
                return
            job.deliver(item)
            made = made or (isinstance(item, DecodedStep) and item.last)
            if made and self.queue.waiting:
                break  # pictures of quick steps are made up for only while nobody waits
        job.end(jobs.DONE)

    def _decode_part(self, model: Any, batch: list[Job]) -> None:
        with _errors_reported(batch):
            self._decode_steps(model, batch)

    def _decode_steps(self, model: Any, batch: list[Job]) -> None:
        requests = [job.request for job in batch if job.request is not None]
        owners = [job for job in batch for _ in range(job.images)]
        lasts = [request.num_steps[0] - 1 for request in requests]
        steps = model.decode_tokens_steps(
            torch.cat([request.tokens for request in requests]),
            [label for request in requests for label in request.labels],
            requests[0].configs[0],
            [seed for request in requests for seed in request.seeds],
            wanted=lambda row: owners[row].goes_on,
        )
        began, pictures = time.monotonic(), LivePictures(model)
        members = list(zip(batch, _spans(requests), lasts, strict=True))
        for state in steps:
            live = [member for member in members if _in_time(member[0])]
            if not live:
                return
            going = [member for member in live if state.index < member[2]]
            if going:
                images = pictures.of(state.tokens)
                for job, rows, last in going:
                    job.deliver(DecodedStep(part_of(state, rows, last + 1), images[rows]))
            ready = [member for member in live if state.index == member[2]]
            for job, rows, last in ready:
                # In that thread too: here torch may have another number of them than alone, and
                # pixels would differ in the last bit.
                images = in_one_thread(model.decode, state.tokens[rows])
                job.deliver(DecodedStep(part_of(state, rows, last + 1), images))
                if going:
                    job.end(jobs.DONE)
            if ready and not going:
                self._fill_in({job: rows for job, rows, _ in ready}, pictures, began)

    def _fill_in(self, ready: dict[Job, slice], pictures: LivePictures, began: float) -> None:
        """Decode skipped pictures as long as nobody waits, and end the jobs."""
        skipped = pictures.fill(fill_seconds(began))
        while not self.queue.waiting and any(job.goes_on for job in ready):
            some = next(skipped, None)
            if some is None:
                break
            for job, rows in ready.items():
                job.deliver(LatePictures({number: whole[rows] for number, whole in some.items()}))
        for job in ready:
            job.end(jobs.DONE)


@contextmanager
def _errors_reported(batch: list[Job]) -> Iterator[None]:
    """End these jobs with the error that comes up, for their visitors; it goes no further."""
    try:
        yield
    except RequestError as error:
        for job in batch:
            job.end(jobs.REFUSED, RequestError(str(error)))
    except Exception:
        log.exception("a batch failed")
        for job in batch:
            job.end(jobs.FAILED, JobFailed("see the log"))


def _parts(batch: list[Job], model: Any) -> list[list[Job]]:
    """Split a large batch for the processor's cores, about as many images to each.

    Parts that are decoded side by side need not wait for each other at every step.
    """
    threads = torch.get_num_threads() if model.device.type == "cpu" else 1
    parts: list[list[Job]] = [[] for _ in range(threads)]
    for job in sorted(batch, key=lambda job: -job.images):
        min(parts, key=_num_images).append(job)
    return parts if min(map(_num_images, parts)) >= MIN_PART_IMAGES else [batch]


def _num_images(batch: list[Job]) -> int:
    return sum(job.images for job in batch)


def _spans(requests: list[Request]) -> list[slice]:
    """Which rows of the batch each request has."""
    ends = list(accumulate(request.num_images for request in requests))
    return [
        slice(end - request.num_images, end) for request, end in zip(requests, ends, strict=True)
    ]


def _in_time(job: Job) -> bool:
    """Whether a job goes on; it ends here where it has taken too long."""
    if job.goes_on and job.started is not None:
        try:
            check_time(job.started)
        except RequestError as error:
            job.end(jobs.LATE, error)
    return job.goes_on
