"""The benchmark command: a model in, tables and JSON out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from maskgit_core.config import check_range
from maskgit_core.weights.shipped import SHIPPED_NAME


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark command."""
    parser.add_argument(
        "--model",
        default=SHIPPED_NAME,
        metavar="NAME",
        help="checkpoint folder, known name, or random:embedded, random:imagenet-256-tiny, "
        "random:maskgit-v1-256 for a known shape with random weights",
    )
    parser.add_argument(
        "--only",
        default=None,
        metavar="PARTS",
        help="measure these parts only, separated by commas: start,load,forward,decode,inpaint,"
        "train",
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="how long each measurement is repeated"
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[12], help="decoding steps of part decode"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="images at once")
    parser.add_argument("--threads", type=int, default=None, help="of torch; as many as app.py")
    parser.add_argument("--json", default=None, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--app", default="app.py", help="page to start; empty leaves it out")


def run_benchmark(args: argparse.Namespace) -> None:
    """Run the command: tables of medians on standard output, a bar on the error stream.

    Raises:
        ValueError: an option out of range, or an unknown model or part.
        CheckpointError: a model that cannot be loaded, or a JSON file that cannot be written.
    """
    check_range("seconds", args.seconds, 0.0, 86400.0)
    for name in ("steps", "batches"):
        for value in getattr(args, name):
            check_range(name, value, 1, 4096, whole=True)
    if args.threads is not None:
        check_range("threads", args.threads, 1, 1024, whole=True)

    from torch.utils.benchmark import Compare
    from tqdm import tqdm

    from maskgit_core.benchmark.run import benchmark, chosen_parts
    from maskgit_core.files import write_atomically

    parts = chosen_parts(args.only)
    with tqdm(total=1, file=sys.stderr, unit="case", leave=False) as bar:

        def progress(done: int, total: int, label: str) -> None:
            bar.total, bar.n = total, done
            bar.set_description(label)

        found, facts = benchmark(
            args.model,
            parts,
            threads=args.threads,
            progress=progress,
            seconds=args.seconds,
            steps=args.steps,
            batches=args.batches,
            app=args.app,
        )
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print()
    print(Compare(found))
    if args.json:
        rows = [
            {
                "part": one.label,
                "row": one.sub_label,
                "column": one.description,
                "seconds": one.median,
                "interquartile_range": one.iqr,
                "measurements": len(one.times),
            }
            for one in found
        ]
        text = json.dumps({**facts, "rows": rows}, indent=2, ensure_ascii=False) + "\n"
        write_atomically(args.json, lambda path: Path(path).write_text(text, encoding="utf-8"))
