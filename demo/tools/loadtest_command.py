"""The command `loadtest`."""

from __future__ import annotations

import argparse


def add_loadtest_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("--url", required=True, help="address of a running page")
    parser.add_argument("--clients", type=int, default=32, help="visitors at once")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long they ask for more")
    parser.add_argument("--leave", type=float, default=0.3, help="share left in the middle")
    parser.add_argument("--steps", type=int, default=12, help="decoding steps of each request")
    parser.add_argument("--pid", type=int, default=None, help="server process, to see its memory")


def run_loadtest(arguments: argparse.Namespace) -> int:
    """Run the load test and print the report; 1 where something failed.

    Raises:
        ValueError: a number out of range.
    """
    if arguments.clients < 1 or arguments.seconds <= 0 or not 0 <= arguments.leave <= 1:
        raise ValueError("clients and seconds must be above 0, and leave from 0 to 1")
    from demo.tools.loadtest import run_load

    report = run_load(
        arguments.url,
        clients=arguments.clients,
        seconds=arguments.seconds,
        leave=arguments.leave,
        steps=arguments.steps,
        pid=arguments.pid,
    )
    for name, value in report.items():
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    return 1 if report["failed"] else 0
