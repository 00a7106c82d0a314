"""One visitor's job: its place in the queue, whose it is, and how it ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from demo.serving.request import Request
from demo.serving.steps import DecodedStep, Place

WAITING, WORKING, ENDED = "waiting", "working", "ended"
DONE, LEFT, LATE, FAILED, REFUSED = "done", "left", "late", "failed", "refused"
OUTCOMES = (DONE, LEFT, LATE, FAILED, REFUSED)
Task = Request | Callable[[], Any]

FIRST_LOOK_SECONDS = 0.3
NEXT_LOOKS_SECONDS = 1.0


@dataclass(frozen=True)
class _End:
    error: Exception | None


class JobFailed(RuntimeError):
    """The computing thread met an error; it is in the log."""


class Job:
    """What is computed, seen from both ends: the thread that computes and the visitor who waits.

    Args:
        task: a request, decoded together with those of others who want the same settings; or a
            function, computed alone, of which the result goes to the visitor.
        kind: for the log, such as `generate`.
        model: name of the model, for the log.
        place: tells a waiting job's place in the queue.
        ended: called once, with the job, when it has ended in any way.
        visitor: whose it is; tells nothing but whether two jobs are of the same.
    """

    def __init__(
        self,
        task: Task,
        kind: str,
        model: str,
        *,
        place: Callable[[Job], int],
        ended: Callable[[Job], None],
        visitor: str = "",
    ) -> None:
        self.kind, self.model, self.visitor = kind, model, visitor
        self.request = task if isinstance(task, Request) else None
        self.function = None if isinstance(task, Request) else task
        self.state = WAITING
        self.outcome: str | None = None
        self.batch_jobs = 0
        self._place, self._ended = place, ended
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._joined = time.monotonic()
        self.started: float | None = None  # in seconds of the monotonic clock
        self._finished: float | None = None

    @property
    def images(self) -> int:
        """Images that it makes."""
        return self.request.num_images if self.request else 0

    @property
    def steps(self) -> int:
        """Steps that were asked for."""
        return max(config.num_steps for config in self.request.configs) if self.request else 0

    @property
    def together(self) -> Hashable | None:
        """Jobs of which this is equal may share a batch; None stays alone."""
        return self.request.together if self.request else None

    @property
    def goes_on(self) -> bool:
        """Whether anyone still waits for what it makes."""
        return self.state != ENDED

    @property
    def wait_seconds(self) -> float:
        """How long it has waited in the queue."""
        until = self.started or self._finished or time.monotonic()
        return until - self._joined

    @property
    def work_seconds(self) -> float:
        """How long it has been worked on."""
        if self.started is None:
            return 0.0
        return (self._finished or time.monotonic()) - self.started

    def start(self, batch_jobs: int) -> bool:
        """Its turn has come, with so many jobs in the batch; False where it has ended before."""
        with self._lock:
            if self.state == WAITING:
                self.state, self.batch_jobs = WORKING, batch_jobs
                self.started = time.monotonic()
            return self.state == WORKING

    def deliver(self, item: Any) -> None:
        """Hand a result on."""
        self._items.put(item)

    def end(self, outcome: str, error: Exception | None = None) -> None:
        """End it; without effect where it has ended already."""
        with self._lock:
            if self.state == ENDED:
                return
            self.state, self.outcome = ENDED, outcome
            self._finished = time.monotonic()
        self._items.put(_End(error))
        self._ended(self)

    def follow(self) -> Iterator[Any]:
        """Yield Place(0), its results, and its place about once a second while it waits.

        To stop listening is to leave: the job ends. After the last step it is done, and only
        late pictures are left out. The places are also how a visitor's leaving
        is noticed, since a generator can be closed only where it yields.

        Raises:
            RequestError: it cannot be done; one sentence.
            JobFailed: an unexpected error.
        """
        patience, outcome = FIRST_LOOK_SECONDS, LEFT
        try:
            yield Place(0)
            while True:
                try:
                    item = self._items.get(timeout=patience)
                except queue.Empty:
                    if self.state == WAITING:
                        yield Place(self._place(self))
                    patience = NEXT_LOOKS_SECONDS
                    continue
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    return
                if isinstance(item, DecodedStep) and item.last:
                    outcome = DONE
                yield item
        finally:
            self.end(outcome)
