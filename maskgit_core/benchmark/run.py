"""All parts of `benchmark`: a model in, measurements and what they depend on out."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Measurement

from maskgit_core.benchmark.decoding import decode_cases, forward_cases, inpaint_cases, load_cases
from maskgit_core.benchmark.models import load_model
from maskgit_core.benchmark.start import start_cases
from maskgit_core.benchmark.timing import Case, Setup
from maskgit_core.benchmark.training import train_cases

PARTS: dict[str, Callable[[Setup], list[Case]]] = {
    "start": start_cases,
    "load": load_cases,
    "forward": forward_cases,
    "decode": decode_cases,
    "inpaint": inpaint_cases,
    "train": train_cases,
}
MOST_THREADS = 4  # what app.py takes


def chosen_parts(only: str | None) -> list[str]:
    """Return the parts that are named, separated by commas, in the order of `PARTS`; None is all.

    Raises:
        ValueError: an unknown part, or none.
    """
    names = list(PARTS) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in PARTS:
            raise ValueError(f"only must name parts among {', '.join(PARTS)}; got {only!r}")
    return [part for part in PARTS if part in names]


def benchmark(
    name: str,
    parts: Sequence[str],
    *,
    threads: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, label: None,
    **settings: Any,
) -> tuple[list[Measurement], dict[str, Any]]:
    """Measure a model.

    Args:
        name: as in `models.load_model`.
        parts: names of `PARTS`.
        threads: of torch; None takes as many as `app.py`, one a core and at most four.
        progress: called with cases done, cases in all, and what comes next.
        settings: of `timing.Setup`.

    Returns:
        The measurements, and facts about model and machine.

    Raises:
        ValueError: an unknown shape, or a page that does not start.
        CheckpointError: a checkpoint that cannot be loaded.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or max(1, min(MOST_THREADS, os.cpu_count() or 1)))
    try:
        setup = Setup(load_model(name), name, **settings)
        cases = [case for part in parts for case in PARTS[part](setup)]
        found = []
        for done, case in enumerate(cases):
            progress(done, len(cases), f"{case.part}: {case.row} {case.column}".strip())
            found.append(case.measure(case))
        progress(len(cases), len(cases), "done")
        return found, facts(setup)
    finally:
        torch.set_num_threads(before)


def facts(setup: Setup) -> dict[str, Any]:
    """Return what the numbers depend on: the model and the machine."""
    model = setup.model
    return {
        "model": setup.name,
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
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
