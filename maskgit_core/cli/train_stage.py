"""What the training commands share: the ranks, a bar for the steps, what is said of a run."""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from maskgit_core.cli.data import fetch_data
from maskgit_core.config import check_range
from maskgit_core.training.presets import Preset, load_preset
from maskgit_core.training.settings import TrainConfig

if TYPE_CHECKING:
    import torch

    from maskgit_core.training.loop import Report, Stage

# Seconds after which a half-written file in a folder of several runs belongs to none of them.
ABANDONED = 3600.0


def together(command: Callable[[argparse.Namespace], None]) -> Callable[..., None]:
    """Run a command together with the other processes, where torchrun started some."""

    @functools.wraps(command)
    def run(args: argparse.Namespace) -> None:
        from maskgit_core.distributed.group import local_device, process_group

        with process_group(local_device(getattr(args, "device", "auto"))):
            fetch_data(args)
            command(args)

    return run


@contextmanager
def step_report(config: TrainConfig, out: Path) -> Iterator[Report]:
    """Yield a report for `train`: a progress bar, and TensorBoard's files where it is installed.

    Of several processes the first shows something.
    """
    from tqdm import tqdm

    from maskgit_core.distributed.group import is_first
    from maskgit_core.training.log import open_writer

    if not is_first():
        yield lambda step, measures: None
        return

    bars: list[tqdm] = []
    writer = open_writer(out)

    def report(step: int, measures: dict[str, float]) -> None:
        if not bars:
            # Not earlier: an error in the settings is one line, without a bar beside it.
            bars.append(tqdm(total=config.max_steps, initial=step - 1, unit="step"))
        bars[0].update(step - bars[0].n)
        if measures:
            shown = {"loss": "loss", "psnr": "psnr", "images_per_second": "images/s"}
            shown |= {"accuracy": "accuracy", "data_share": "data share"}
            bars[0].set_postfix(
                {t: f"{measures[k]:.3g}" for k, t in shown.items() if k in measures}
            )
            if writer is not None:
                writer.add(step, measures)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()
        if writer is not None:
            writer.close()


def run_stage(stage: Stage, config: TrainConfig, args: argparse.Namespace) -> None:
    """Train, show how far it is and say where it ended; a signal is said and passed on."""
    from maskgit_core.distributed.group import is_first
    from maskgit_core.training.guards import remove_leftovers
    from maskgit_core.training.log import data_share
    from maskgit_core.training.loop import train

    seconds = math.inf if args.max_minutes is None else 60 * args.max_minutes
    out = Path(args.out)
    if args.cache and is_first():
        remove_leftovers(Path(args.cache), older_than=ABANDONED)
    try:
        with step_report(config, out) as report:
            step = train(stage, config, out, report=report, max_seconds=seconds)
    except KeyboardInterrupt:
        if is_first():
            print(f"stopped; the same command goes on{_reached(out)}")
        raise
    if not is_first():
        return
    word = "finished" if step >= config.max_steps else "stopped; the same command goes on"
    share = data_share(out)
    told = "" if share is None else f"; making batches took {100 * share:.1f} % of the time"
    print(f"{word} at step {step}; weights in {out / 'checkpoint'}{told}")


def _reached(out: Path) -> str:
    from maskgit_core.training.run import saved_step

    step = saved_step(out)
    return f" at step {step}; weights in {out / 'checkpoint'}" if step else ""


def given_preset(args: argparse.Namespace) -> Preset | None:
    """Return the preset of --preset; raise ValueError for an unknown one."""
    return load_preset(args.preset) if args.preset else None


def check_minutes(args: argparse.Namespace) -> None:
    """Raise ValueError for --max-minutes below 0."""
    if args.max_minutes is not None:
        check_range("max_minutes", args.max_minutes, 0.0)


def checked_device(args: argparse.Namespace, config: TrainConfig) -> torch.device:
    """Return where to train; a setting that does not fit it is told before minutes of reading."""
    from maskgit_core.distributed.group import local_device
    from maskgit_core.training.loop import autocast_for, own_parts

    own_parts(config)
    device = local_device(getattr(args, "device", "auto"))
    autocast_for(config.precision, device)
    return device


def started_from(init: Path | None) -> dict[str, str]:
    """Return what a run remembers of the checkpoint that it began with."""
    from maskgit_core.data.fingerprints import hash_of_checkpoint

    return {"fingerprint of init": hash_of_checkpoint(init) if init else "none"}


def tell(notes: Sequence[str]) -> None:
    """Print what became of the networks of --init, once whatever the number of processes."""
    from maskgit_core.distributed.group import is_first

    if is_first():
        for note in notes:
            print(note)
