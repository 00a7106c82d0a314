"""The benchmark command: a model in, a table and JSON out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.cli.sampling import DEFAULT_CHECKPOINT
from maskgit_core.config import check_range

if TYPE_CHECKING:
    from maskgit_core.benchmark.timing import Row, Spread

PARTS = (
    "import",
    "load",
    "tokenizer",
    "forward",
    "decode",
    "live",
    "first",
    "inpaint",
    "precision",
    "train",
    "memory",
    "app",
)
HEADER = ("part", "case", "median", "low to high", "unit", "plain loop", "ratio", "note")
TO_THE_RIGHT = (2, 3, 5, 6)


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark command."""
    parser.add_argument(
        "--model",
        default=DEFAULT_CHECKPOINT,
        metavar="NAME",
        help="checkpoint folder, known name, or random:embedded, random:imagenet-256-tiny, "
        "random:maskgit-v1-256 for a known shape with random weights",
    )
    parser.add_argument(
        "--only",
        default=None,
        metavar="PARTS",
        help=f"measure these parts only, separated by commas: {','.join(PARTS)}",
    )
    parser.add_argument("--repeats", type=int, default=5, help="runs of each measurement")
    parser.add_argument(
        "--limit",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="stop repeating a measurement after this long; leave out what takes thrice as long",
    )
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[8, 12, 32], help="decoding steps of part decode"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="images at once")
    parser.add_argument("--threads", type=int, default=None, help="of torch; as many as app.py")
    parser.add_argument("--json", default=None, metavar="FILE", help="also write the numbers here")
    parser.add_argument("--app", default="app.py", help="page to start; empty leaves it out")


def chosen_parts(only: str | None) -> tuple[str, ...]:
    """Return the parts that are named, in the order of `PARTS`; all of them for None.

    Raises:
        ValueError: an unknown part.
    """
    if only is None:
        return PARTS
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in PARTS:
            raise ValueError(f"only must name parts among {', '.join(PARTS)}; got {name!r}")
    if not names:
        raise ValueError(f"only must name parts among {', '.join(PARTS)}; got nothing")
    return tuple(part for part in PARTS if part in names)


def run_benchmark(args: argparse.Namespace) -> None:
    """Run the command: the table on standard output, a bar on the error stream.

    Raises:
        ValueError: an option out of range, or an unknown model or part.
        CheckpointError: a model that cannot be loaded, or a JSON file that cannot be written.
    """
    parts = chosen_parts(args.only)
    check_range("repeats", args.repeats, 1, 1000, whole=True)
    check_range("limit", args.limit, 0.0, 86400.0)
    for name in ("steps", "batches"):
        for value in getattr(args, name):
            check_range(name, value, 1, 4096, whole=True)
    if args.threads is not None:
        check_range("threads", args.threads, 1, 1024, whole=True)

    from tqdm import tqdm

    from maskgit_core.benchmark.run import benchmark
    from maskgit_core.weights.checkpoint import write_atomically

    with tqdm(total=1, file=sys.stderr, unit="job", leave=False) as bar:

        def progress(done: int, total: int, label: str) -> None:
            bar.total, bar.n = total, done
            bar.set_description(label)

        rows, facts = benchmark(
            args.model,
            parts,
            repeats=args.repeats,
            limit=args.limit,
            steps=args.steps,
            batches=args.batches,
            app=args.app,
            threads=args.threads,
            progress=progress,
        )
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print()
    print(format_table(rows))
    if args.json:
        result: dict[str, Any] = {**facts, "rows": [row.as_dict() for row in rows]}
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        write_atomically(args.json, lambda path: Path(path).write_text(text, encoding="utf-8"))


def format_table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned lines under a header; a part is named on its first line."""
    lines = [HEADER]
    part = None
    for row in rows:
        lines.append(
            (
                row.part if row.part != part else "",
                row.case,
                _number(row.value.median) if row.value else "-",
                _range(row.value),
                row.unit,
                _number(row.plain.median) if row.plain else "",
                f"{row.ratio:.2f}x" if row.ratio is not None else "",
                row.note,
            )
        )
        part = row.part
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in TO_THE_RIGHT else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _range(value: Spread | None) -> str:
    if value is None or value.repeats == 1:
        return ""
    return f"{_number(value.low)} to {_number(value.high)}"


def _number(value: float) -> str:
    """Three significant digits, whole from 100 on."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
