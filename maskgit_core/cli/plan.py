"""The plan command: what a preset needs, before anybody waits a week for it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from maskgit_core.config import check_range
from maskgit_core.training.accelerators import DEVICE_NAMES, find_device
from maskgit_core.training.presets import load_preset, preset_names

if TYPE_CHECKING:
    from maskgit_core.training.estimate import Plan


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the plan command."""
    parser.add_argument(
        "--preset", required=True, metavar="NAME", help=f"one of {', '.join(preset_names())}"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting of it"
    )
    parser.add_argument("--device", default="cpu", help=f"one of {', '.join(DEVICE_NAMES)}")
    parser.add_argument("--gpus", type=int, default=1, help="devices, one rank each")
    parser.add_argument(
        "--utilisation",
        type=float,
        default=None,
        metavar="X",
        help="share of the peak that training reaches, where you know better",
    )
    parser.add_argument(
        "--price-per-hour", type=float, default=None, metavar="X", help="of one device"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_plan(args: argparse.Namespace) -> None:
    """Run the command."""
    from maskgit_core.training.estimate import make_plan, plan_facts

    preset, device = load_preset(args.preset, args.set), find_device(args.device)
    if args.utilisation is not None:
        check_range("utilisation", args.utilisation, 0.001, 1.0)
        device = replace(device, share=(args.utilisation,) * 2)
    if args.price_per_hour is not None:
        check_range("price_per_hour", args.price_per_hour, 0.0)
    plan = make_plan(preset, device, args.gpus)
    if args.json:
        print(json.dumps(plan_facts(plan, args.price_per_hour)))
    else:
        print("\n".join(plan_lines(plan, args.price_per_hour, args.utilisation)))
    for sentence in plan.too_large:
        print(f"too large: {sentence}", file=sys.stderr)


def plan_lines(plan: Plan, price: float | None, utilisation: float | None) -> list[str]:
    """Return a plan as lines for people."""
    device = plan.device
    lines = [
        f"{plan.preset.name}: {plan.preset.summary}",
        f"on {plan.ranks} x {device.name}, {device.memory / 1e9:.0f} GB, peak "
        f"{_flops(device.peak)}/s in {device.precision}",
    ]
    if plan.preset.published_tokenizer:
        lines.append(f"tokenizer: kept from {plan.preset.published_tokenizer}, not trained")
    for stage in plan.stages:
        lines += [
            f"{stage.stage}: {stage.parameters / 1e6:.1f} M parameters",
            f"  an image: {_flops(stage.forward_flops)} forward, "
            f"{_flops(stage.training_flops)} in training",
            f"  {stage.steps:,} steps of {stage.batch_size} images, {stage.rank_batch} a rank",
            f"  memory a rank: {stage.rank_bytes / 1e9:.2f} GB",
            f"  expected: {stage.images_per_second:,.3g} images/s, {_hours(stage.hours)}",
        ]
    total = f"in all: {_hours(plan.hours)}"
    if price is not None:
        total += f", cost {plan.cost(price):,.2f} at {price:g} an hour and device"
    lines.append(total)
    shares = " and ".join(f"{100 * share:.0f} %" for share in device.share)
    if utilisation is not None:
        lines.append(f"with {100 * utilisation:.0f} % of the peak, as you said")
    elif device.measured:
        where = "there"
        if device.name == "cpu":
            lines.append("the peak was measured now")
            where = "on two shared cores"
        lines.append(
            f"{shares} of the peak (tokenizer, transformer) were reached on another day, {where}"
        )
    else:
        lines.append(
            f"with {shares} of the peak (tokenizer, transformer): assumed, not measured; "
            "--utilisation sets your own"
        )
    if plan.ranks > 1:
        lines.append("with 90 % of perfect scaling over devices: assumed, not measured")
    return lines


def _flops(value: float) -> str:
    for size, unit in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} FLOP"


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:,.1f} h"
