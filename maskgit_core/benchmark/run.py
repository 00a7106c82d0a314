"""Speed and memory of a model on this machine, beside a plain loop that does the same work.

Absolute numbers belong to one machine; the ratio to the plain reference loop (`reference_loop`),
measured in the same run, and the share of the machine's own matrix product hold on any.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch

from maskgit_core.benchmark.models import load_model
from maskgit_core.benchmark.parts import (
    decode_jobs,
    first_jobs,
    forward_jobs,
    inpaint_jobs,
    live_jobs,
    load_jobs,
    tokenizer_jobs,
)
from maskgit_core.benchmark.precision import precision_jobs
from maskgit_core.benchmark.processes import app_jobs, import_jobs, memory_jobs
from maskgit_core.benchmark.setup import Bench, Job
from maskgit_core.benchmark.timing import Row
from maskgit_core.benchmark.training import train_jobs
from maskgit_core.cli.benchmark import PARTS

JOBS: dict[str, Callable[[Bench], list[Job]]] = {
    "import": import_jobs,
    "load": load_jobs,
    "tokenizer": tokenizer_jobs,
    "forward": forward_jobs,
    "decode": decode_jobs,
    "live": live_jobs,
    "first": first_jobs,
    "inpaint": inpaint_jobs,
    "precision": precision_jobs,
    "train": train_jobs,
    "memory": memory_jobs,
    "app": app_jobs,
}
MOST_THREADS = 4  # what app.py takes


def benchmark(
    name: str,
    parts: Sequence[str] = PARTS,
    *,
    repeats: int = 5,
    limit: float = 20.0,
    steps: Sequence[int] = (8, 12, 32),
    batches: Sequence[int] = (1, 4, 16),
    app: str = "",
    threads: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> tuple[list[Row], dict[str, Any]]:
    """Measure a model.

    Args:
        name: as in `benchmark_models.load_model`.
        parts: names of `PARTS`.
        repeats: runs of each measurement.
        limit: seconds after which a measurement is not repeated further; what is expected to take
            three times as long is left out, with a note.
        steps: decoding steps of part `decode`.
        batches: images at once.
        app: path of the program that serves the page; empty leaves it out.
        threads: of torch; None takes as many as `app.py`, one a core and at most four.
        progress: called with jobs done, jobs in all, and what comes next.

    Returns:
        The rows, and facts about model and machine.

    Raises:
        ValueError: an unknown shape, or a page that does not start.
        CheckpointError: a checkpoint that cannot be loaded.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, min(MOST_THREADS, os.cpu_count() or 1)))
    try:
        model = load_model(name)
        bench = Bench(model, name, repeats, limit, tuple(steps), tuple(batches), app)
        jobs = [job for part in parts for job in JOBS[part](bench)]
        rows: list[Row] = []
        for done, (label, job) in enumerate(jobs):
            progress(done, len(jobs), label)
            rows += job()
        progress(len(jobs), len(jobs), "done")
        return rows, facts(bench)
    finally:
        torch.set_num_threads(before)


def facts(bench: Bench) -> dict[str, Any]:
    """Return what the numbers depend on: the model and the machine."""
    model = bench.model
    return {
        "model": bench.name,
        "image_size": model.image_size,
        "grid_size": model.grid_size,
        "codebook_size": model.codebook_size,
        "tokenizer_parameters": sum(p.numel() for p in model.tokenizer.parameters()),
        "transformer_parameters": sum(p.numel() for p in model.transformer.parameters()),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
