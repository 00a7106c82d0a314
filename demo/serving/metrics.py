"""What the server tells its owner: one log line a job, and counters. Nothing about visitors."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from typing import Any

log = logging.getLogger("maskgit.jobs")


class Metrics:
    """Writes a line for each job that has ended, and adds it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: Counter[tuple[str, str]] = Counter()
        self._images = 0
        self._batches = 0
        self._batched_jobs = 0
        self._wait_seconds = 0.0
        self._work_seconds = 0.0

    def record(self, job: Any) -> None:
        """Log and count a `Job` that has ended."""
        with self._lock:
            self._jobs[job.kind, job.outcome] += 1
            self._wait_seconds += job.wait_seconds
            self._work_seconds += job.work_seconds
            if job.outcome == "done":
                self._images += job.images
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
        with self._lock:
            self._batches += 1
            self._batched_jobs += num_jobs

    def prometheus(self, *, waiting: int, working: int) -> str:
        """Everything in the text format that Prometheus reads.

        Args:
            waiting, working: jobs in the queue, and in the batch that is computed now.
        """
        with self._lock:
            jobs = {
                f'{{kind="{kind}",outcome="{outcome}"}}': number
                for (kind, outcome), number in sorted(self._jobs.items())
            }
            metrics: list[tuple[str, str, str, dict[str, float]]] = [
                ("jobs_total", "counter", "Jobs that have ended.", jobs),
                ("images_total", "counter", "Images of jobs that were done.", {"": self._images}),
                ("batches_total", "counter", "Batches decoded.", {"": self._batches}),
                ("batched_jobs_total", "counter", "Jobs in them.", {"": self._batched_jobs}),
                ("wait_seconds_total", "counter", "Time in the queue.", {"": self._wait_seconds}),
                ("work_seconds_total", "counter", "Time worked on.", {"": self._work_seconds}),
                ("jobs_waiting", "gauge", "Jobs in the queue now.", {"": waiting}),
                ("jobs_working", "gauge", "Jobs worked on now.", {"": working}),
            ]
        lines = []
        for name, kind, text, values in metrics:
            lines += [f"# HELP maskgit_{name} {text}", f"# TYPE maskgit_{name} {kind}"]
            lines += [f"maskgit_{name}{label} {value:g}" for label, value in values.items()]
        return "\n".join(lines) + "\n"


def log_to_stderr() -> None:
    """Show the lines, one JSON object each."""
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.setLevel(logging.INFO)
        log.propagate = False
