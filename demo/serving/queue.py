"""The line in front of the model: one thread computes, equal wishes are decoded as one batch.

Visitors take turns, see `fairness`. A job joins a batch when the batch begins, never later; a large
batch is split between the cores. Each image has its own seed and label, so it is the same image as
alone. A visitor who leaves is dropped from the batch before its next step.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch

from demo.runs import compare, generate
from demo.serving import fairness, jobs, zero_gpu
from demo.serving.decoding import (
    Decoded,
    DecodedStep,
    DecodeRequest,
    LatePictures,
    Place,
    fill_seconds,
)
from demo.serving.jobs import Job, JobFailed, Work
from demo.serving.metrics import Ledger
from demo.serving.models import ModelHolder
from demo.serving.one_thread import in_one_thread
from demo.settings import RequestError
from maskgit_core.decoding.loop import StepState
from maskgit_core.decoding.previews import LivePictures
from maskgit_core.devices.malloc import give_back_freed_memory
from maskgit_core.devices.threads import side_by_side

log = logging.getLogger(__name__)

MAX_WAITING = 32
MAX_BATCH_IMAGES = 16
MIN_PART_IMAGES = 2  # smaller parts are faster together
TIDY_SECONDS = 2.0  # more often, small jobs would have each page cleared for them again and again


class Scheduler:
    """Runs the jobs of visitors in turn, those of one in the order of their arrival.

    Args:
        max_waiting: jobs that may wait; one more is refused. Visitors who have none may bring one
            each, up to half as many again, so that nobody can shut all others out.
        max_batch_images: a batch takes further jobs up to so many images.
        batching: off, every job is decoded alone.
        ledger: gets a line for each job that ends.
    """

    concurrency: int | None = None  # of the page's events: all of them may wait here

    def __init__(
        self,
        *,
        max_waiting: int = MAX_WAITING,
        max_batch_images: int = MAX_BATCH_IMAGES,
        batching: bool = True,
        ledger: Ledger | None = None,
    ) -> None:
        self.ledger = ledger or Ledger()
        self._max_waiting = max_waiting
        self._max_images = max_batch_images if batching else 0
        self._line: list[Job] = []
        self._working: list[Job] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._tidy_at = 0.0

    @property
    def num_waiting(self) -> int:
        """Jobs in line."""
        return len(self._line)

    @property
    def num_working(self) -> int:
        """Jobs in the batch that is computed now."""
        return sum(job.wanted for job in self._working)

    def submit(self, work: Work, *, refusable: bool = True, visitor: str | None = None) -> Job:
        """Put a job into the line.

        Args:
            work: what to compute.
            refusable: whether the bound on waiting jobs holds for it.
            visitor: whose it is; None is who caused the event that runs in this thread.

        Raises:
            RequestError: too many are waiting.
        """
        if visitor is None:
            visitor = fairness.current_visitor()
        job = Job(work, self._place, self._on_end, visitor)
        with self._changed:
            full = refusable and len(self._line) >= self._room(visitor)
            if not full:
                self._line.append(job)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, daemon=True, name="model")
                    self._thread.start()
                self._changed.notify()
        if full:
            job.end(jobs.REFUSED)
            raise RequestError(
                f"{self._max_waiting} others are waiting already. Try again in a minute."
            )
        return job

    def _room(self, visitor: str) -> int:
        """Jobs that may wait when this visitor brings one."""
        present = any(job.visitor == visitor for job in self._line)
        return self._max_waiting if present else self._max_waiting * 3 // 2

    # ---- what the page calls ---------------------------------------------------------------------

    def run(
        self, make: Callable[..., Iterator[Any]], models: ModelHolder, name: str, request: Any
    ) -> Iterator[Any]:
        """Yield what a run yields, decoded in its turn; see `generate.generate_run`.

        Args:
            make: `generate_run`, `edit_run`, `redo_run`, `tour_run` or `compare_run`. The last one
                decodes in several ways side by side, so it is computed as a whole and alone.
            models: holds the model.
            name: of the model that the request was made for.
            request: what the function takes.
        """
        if make is compare.compare_run:
            work = Work("compare", name, run=lambda: make(models.expect(name), request))
            return self._alone(work)
        return make(models.expect(name), request, lambda wish: self._in_turn(models, name, wish))

    def _in_turn(self, models: ModelHolder, name: str, wish: DecodeRequest) -> Iterator[Decoded]:
        sizes = {"steps": wish.config.num_steps, "images": len(wish.labels)}
        work = Work(wish.kind, name, lambda: models.expect(name), wish, **sizes)
        return self.submit(work).follow()

    def _alone(self, work: Work) -> Iterator[Any]:
        for item in self.submit(work).follow():
            yield ({"waiting": item.number}, []) if isinstance(item, Place) else item

    def call(
        self, kind: str, models: ModelHolder, run: Callable[[], Any], *, refusable: bool = True
    ) -> Any:
        """Return a function's result, computed alone."""
        return list(self.watch(kind, models, run, refusable=refusable))[-1]

    def watch(
        self, kind: str, models: ModelHolder, run: Callable[[], Any], *, refusable: bool = True
    ) -> Iterator[Any]:
        """Yield a `Place` now and then while a function waits for its turn, then its result."""

        def once() -> Iterator[Any]:
            yield run()

        yield from self.submit(Work(kind, models.name, run=once), refusable=refusable).follow()

    # ---- the line --------------------------------------------------------------------------------

    def _place(self, job: Job) -> int:
        with self._changed:
            line = fairness.behind(self._line, self._working)
            order = fairness.service_order(line, self._max_images)
            return next((place for place, other in enumerate(order, 1) if other is job), 0)

    def _on_end(self, job: Job) -> None:
        with self._changed:
            if job in self._line:
                self._line.remove(job)
        self.ledger.record(job)

    def _take(self) -> list[Job]:
        """Wait for a job; return it with those that may be decoded with it."""
        with self._changed:
            while not self._line:
                self._changed.wait()
            batch, self._line = fairness.next_batch(self._line, self._max_images)
            self._working = batch
            return batch

    def _serve(self) -> None:
        while True:
            self._serve_one()

    def _serve_one(self) -> None:
        batch = self._take()
        batch = [job for job in batch if job.start(len(batch))]
        try:
            with _errors_told(batch):
                if batch and batch[0].work.run is not None:
                    self._run_alone(batch[0])
                elif batch:
                    self._decode(batch)
        finally:
            with self._changed:
                # Who came in the meantime has not been served; whose jobs these were has.
                self._line = fairness.behind(self._line, self._working)
                self._working = []
            self._tidy()

    def _tidy(self) -> None:
        now = time.monotonic()
        if now >= self._tidy_at:
            give_back_freed_memory()
            self._tidy_at = now + TIDY_SECONDS

    # ---- computing -------------------------------------------------------------------------------

    def _run_alone(self, job: Job) -> None:
        for item in job.work.run():
            if not _in_time(job):
                return
            job.deliver(item)
        job.end(jobs.DONE)

    def _decode(self, batch: list[Job]) -> None:
        model = batch[0].work.model()
        self.ledger.count_batch(len(batch))
        side_by_side([partial(self._decode_part, model, part) for part in _parts(batch, model)])

    def _decode_part(self, model: Any, batch: list[Job]) -> None:
        with _errors_told(batch):
            self._decode_steps(model, batch)

    def _decode_steps(self, model: Any, batch: list[Job]) -> None:
        wishes = [job.work.request for job in batch]
        owners = [job for job in batch for _ in job.work.request.labels]
        spans = _spans(wishes)
        lasts = [_last_step(wish, int(model.mask_token_id)) for wish in wishes]
        steps = model.decode_tokens_steps(
            torch.cat([wish.tokens for wish in wishes]),
            [label for wish in wishes for label in wish.labels],
            wishes[0].config,
            [seed for wish in wishes for seed in wish.seeds],
            wanted=lambda row: owners[row].wanted,
        )
        began, pictures = time.monotonic(), LivePictures(model)
        for state in steps:
            live = [
                member for member in zip(batch, spans, lasts, strict=True) if _in_time(member[0])
            ]
            if not live:
                return
            going = [member for member in live if state.index < member[2]]
            if going:
                images = pictures.of(state.tokens)
                for job, rows, last in going:
                    job.deliver(DecodedStep(_only(state, rows, last + 1), images[rows]))
            ready = [member for member in live if state.index == member[2]]
            for job, rows, last in ready:
                # In that thread too: here torch may have another number of them than alone, and
                # pixels would differ in the last bit.
                images = in_one_thread(model.decode, state.tokens[rows])
                job.deliver(DecodedStep(_only(state, rows, last + 1), images))
                if going:
                    job.end(jobs.DONE)
            if ready and not going:
                self._fill_in({job: rows for job, rows, _ in ready}, pictures, began)

    def _fill_in(self, ready: dict[Job, slice], pictures: LivePictures, began: float) -> None:
        """Decode skipped pictures as long as nobody waits, and end the jobs."""
        skipped = pictures.fill(fill_seconds(began))
        while not self._line and any(job.wanted for job in ready):
            found = next(skipped, None)
            if found is None:
                break
            for job, rows in ready.items():
                job.deliver(LatePictures({number: whole[rows] for number, whole in found.items()}))
        for job in ready:
            job.end(jobs.DONE)


@contextmanager
def _errors_told(batch: list[Job]) -> Iterator[None]:
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
    for job in sorted(batch, key=lambda job: -job.work.images):
        min(parts, key=_num_images).append(job)
    return parts if min(map(_num_images, parts)) >= MIN_PART_IMAGES else [batch]


def _num_images(batch: list[Job]) -> int:
    return sum(job.work.images for job in batch)


def _spans(wishes: list[DecodeRequest]) -> list[slice]:
    """Which rows of the batch each wish has."""
    ends = list(accumulate(len(wish.labels) for wish in wishes))
    return [slice(end - len(wish.labels), end) for wish, end in zip(wishes, ends, strict=True)]


def _last_step(wish: DecodeRequest, mask_token_id: int) -> int:
    """Index of the step after which nothing of these grids is masked."""
    unknown = int((wish.tokens == mask_token_id).sum(dim=(1, 2)).max())
    return max(1, min(wish.config.num_steps, unknown)) - 1


def _only(state: StepState, rows: slice, num_steps: int) -> StepState:
    return StepState(
        state.index,
        num_steps,
        state.tokens[rows],
        state.newly_revealed[rows],
        state.confidence[rows],
        state.alternative_ids[rows],
        state.alternative_probs[rows],
    )


def _in_time(job: Job) -> bool:
    """Whether a job goes on; it ends here where it has taken too long."""
    if job.wanted:
        try:
            generate.check_time(job.started)
        except RequestError as error:
            job.end(jobs.LATE, error)
    return job.wanted


def make_scheduler(models: ModelHolder) -> Any:
    """What runs jobs on this machine.

    The environment variable MASKGIT_BATCHING=0 decodes every job alone, to compare.
    """
    ledger = Ledger()
    if zero_gpu.on_zero_gpu():
        return zero_gpu.GpuRuns(models, ledger)
    batching = os.environ.get("MASKGIT_BATCHING", "1") != "0"
    return Scheduler(batching=batching, ledger=ledger)
