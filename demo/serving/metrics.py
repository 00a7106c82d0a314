"""What the server tells its owner: one log line a job, and counters. Nothing about visitors."""

from __future__ import annotations

import json
import logging
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)

log = logging.getLogger("maskgit.jobs")

FAILURES_IN_A_ROW = 3  # jobs that fail one after the other: it is the server, not what was asked


class Metrics:
    """Writes a line for each job that has ended, and adds it up."""

    def __init__(self) -> None:
        disable_created_metrics()  # a second line for each counter, with the time of its first job
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"namespace": "maskgit", "registry": self._registry}
        self._jobs = Counter("jobs", "Jobs that have ended.", ["kind", "outcome"], **own)
        self._images = Counter("images", "Images of jobs that were done.", **own)
        self._batches = Counter("batches", "Batches decoded.", **own)
        self._batched_jobs = Counter("batched_jobs", "Jobs in them.", **own)
        self._wait_seconds = Counter("wait_seconds", "Time in the queue.", **own)
        self._work_seconds = Counter("work_seconds", "Time worked on.", **own)
        self._waiting = Gauge("jobs_waiting", "Jobs in the queue now.", **own)
        self._working = Gauge("jobs_working", "Jobs worked on now.", **own)
        self._failures = 0  # in a row

    @property
    def failing(self) -> bool:
        """Whether job after job fails, so that the server had better be started anew."""
        return self._failures >= FAILURES_IN_A_ROW

    def record(self, job: Any) -> None:
        """Log and count a `Job` that has ended."""
        self._jobs.labels(job.kind, job.outcome).inc()
        self._wait_seconds.inc(job.wait_seconds)
        self._work_seconds.inc(job.work_seconds)
        if job.outcome == "failed":
            self._failures += 1
        if job.outcome == "done":
            self._failures = 0
            self._images.inc(job.images)
        line = {
            "event": "job",
            "model": job.model,
            "kind": job.kind,
            "steps": job.steps,
            "images": job.images,
            "ms_waiting": round(1000 * job.wait_seconds),
            "ms_working": round(1000 * job.work_seconds),
            "batch_jobs": job.batch_jobs,
            "outcome": job.outcome,
        }
        log.info(json.dumps(line, ensure_ascii=False))

    def count_batch(self, num_jobs: int) -> None:
        """Count a batch that has begun."""
        self._batches.inc()
        self._batched_jobs.inc(num_jobs)

    def jobs(self, kind: str, outcome: str) -> int:
        """How many jobs of a kind have ended so."""
        labels = {"kind": kind, "outcome": outcome}
        return int(self._registry.get_sample_value("maskgit_jobs_total", labels) or 0)

    def prometheus(self, *, waiting: int, working: int) -> bytes:
        """Everything in the text format that Prometheus reads.

        Args:
            waiting, working: jobs in the queue, and in the batch that is computed now.
        """
        self._waiting.set(waiting)
        self._working.set(working)
        return generate_latest(self._registry)


def log_to_stderr() -> None:
    """Show the lines, one JSON object each."""
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
        log.propagate = False
