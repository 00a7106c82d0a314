"""The queue in front of the model: who waits, at which place, and whose turn is next.

Visitors take turns, see `fairness`. A job joins a batch when the batch begins, never later.
"""

from __future__ import annotations

import threading

from demo.serving import fairness, jobs
from demo.serving.jobs import Job, Task
from demo.serving.metrics import Metrics
from demo.settings import RequestError

MAX_WAITING = 32
MAX_BATCH_IMAGES = 16
STOPPING = "The server is being restarted. Try again in a minute."


class JobQueue:
    """Jobs that wait, and those that are computed now.

    Args:
        max_waiting: jobs that may wait; one more is refused. Visitors who have none may bring one
            each, up to half as many again, so that nobody can shut all others out.
        max_batch_images: a batch takes further jobs up to so many images; 0 leaves each alone.
        metrics: gets each job that ends.
    """

    def __init__(
        self,
        *,
        max_waiting: int = MAX_WAITING,
        max_batch_images: int = MAX_BATCH_IMAGES,
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self._max_waiting = max_waiting
        self._max_images = max_batch_images
        self.waiting: list[Job] = []
        self.working: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False

    def join(
        self,
        task: Task,
        kind: str,
        model: str,
        *,
        refusable: bool = True,
        visitor: str | None = None,
    ) -> Job:
        """Put a job into the queue.

        Args:
            task, kind, model: as in `Job`.
            refusable: whether the bound on waiting jobs holds for it.
            visitor: whose it is; None is who caused the event that runs in this thread.

        Raises:
            RequestError: too many are waiting.
        """
        if visitor is None:
            visitor = fairness.current_visitor()
        job = Job(task, kind, model, place=self.place, ended=self._on_end, visitor=visitor)
        with self._changed:
            if self._closed:
                raise RequestError(STOPPING)
            full = refusable and len(self.waiting) >= self._room(visitor)
            if not full:
                self.waiting.append(job)
                self._changed.notify()
        if full:
            job.end(jobs.REFUSED)
            raise RequestError(
                f"{self._max_waiting} others are waiting already. Try again in a minute."
            )
        return job

    def _room(self, visitor: str) -> int:
        """Jobs that may wait when this visitor brings one."""
        present = any(job.visitor == visitor for job in self.waiting)
        return self._max_waiting if present else self._max_waiting * 3 // 2

    def end_all(self, sentence: str, *, close: bool = False) -> None:
        """End the jobs that wait, for their visitors with a sentence.

        Args:
            sentence: what they are told.
            close: end those that are computed too, and take no more: the server stops.
        """
        with self._changed:
            self._closed = self._closed or close
            ending = [*self.waiting, *(self.working if close else [])]
        for job in ending:
            job.end(jobs.REFUSED, RequestError(sentence))

    def place(self, job: Job) -> int:
        """Place of a waiting job, from 1; 0 where it does not wait."""
        with self._changed:
            waiting = fairness.behind(self.waiting, self.working)
            order = fairness.service_order(waiting, self._max_images)
            return next((place for place, other in enumerate(order, 1) if other is job), 0)

    def _on_end(self, job: Job) -> None:
        with self._changed:
            if job in self.waiting:
                self.waiting.remove(job)
        self.metrics.record(job)

    def take(self) -> list[Job]:
        """Wait for a job; start it with those that may be decoded with it, and return them.

        A job that has ended in the meantime is left out, so there may be none.
        """
        with self._changed:
            while not self.waiting:
                self._changed.wait()
            batch, self.waiting = fairness.next_batch(self.waiting, self._max_images)
            self.working = batch
        return [job for job in batch if job.start(len(batch))]

    def served(self) -> None:
        """Note that those that were taken have been served."""
        with self._changed:
            # Who came in the meantime has not been served; whose jobs these were has.
            self.waiting = fairness.behind(self.waiting, self.working)
            self.working = []
