"""What a whole training remembers in its folder, and how its stages share a time budget.

A stage's state file compares every setting of that stage. What `train.json` keeps is what no state
knows: the data's classes, where the weights came from, and what holds for a stage that has not
begun yet or is done. So a changed command is refused before photos are read, in its own words.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maskgit_core.distributed import group
from maskgit_core.files import write_atomically
from maskgit_core.training.loop import Report, Stage, train
from maskgit_core.training.run import settings_complaint
from maskgit_core.training.settings import TrainConfig

RUN_FILE = "train.json"
TRIAL_SHARE = 0.08  # of a stage's time, to learn how fast it is here
MARGIN = 0.95  # of the time that is left: sheets and saving take some, and machines have moods
MOST_EPOCHS = 200  # passes over the photos: a folder of ten does not need hours
SHEETS = 4
SAVES = 8


class Interrupted(KeyboardInterrupt):
    """A signal ended a stage early; its folder holds everything to go on."""


@dataclass
class RunFile:
    """The settings of a run and where its stages stand, kept in `train.json`.

    Attributes:
        path: of the file.
        settings: what must not change when the run goes on.
        stages: of each stage `max_steps`, `seconds` taken so far and `done`.
    """

    path: Path
    settings: dict[str, Any]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, out: Path, settings: dict[str, Any]) -> RunFile:
        """Read the file of an earlier part of the run, or begin one; all ranks call this.

        Raises:
            ValueError: the run was started with other settings; says which.
        """
        run = cls(out / RUN_FILE, settings)
        try:
            found = json.loads(run.path.read_text(encoding="utf-8"))
            before, run.stages = dict(found["settings"]), dict(found["stages"])
        except FileNotFoundError:
            return run
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{run.path} is damaged ({error}); give another folder") from error
        complaint = settings_complaint(before, settings, out)
        if complaint is not None:
            raise ValueError(complaint)
        return run

    def save(self) -> None:
        """Write the file; the first rank only."""
        if not group.is_first():
            return
        text = json.dumps(
            {"settings": self.settings, "stages": self.stages}, indent=2, ensure_ascii=False
        )
        write_atomically(self.path, lambda part: Path(part).write_text(text, encoding="utf-8"))


Reporting = Callable[[TrainConfig, Path], AbstractContextManager[Report]]


def train_stage(
    name: str,
    stage: Stage,
    config: TrainConfig,
    run: RunFile,
    out: Path,
    *,
    num_images: int,
    seconds: float,
    reporting: Reporting,
) -> int:
    """Train a stage as long as its share of the budget; return its steps.

    How many steps fit is found by a short trial, once: the run file keeps the number, so that an
    interrupted run goes on to the same end. With a process group all its processes call this, and
    the clock of the first decides.

    Args:
        name: of the stage, its place in the run file.
        stage, config: see `training.train`.
        run: written when something about the stage is decided.
        out: folder of the stage.
        num_images: training photos.
        seconds: for the whole stage; infinite takes the steps of the settings.
        reporting: gives a report for a part of the run.

    Raises:
        Interrupted: a signal came.
    """
    kept = run.stages.setdefault(name, {})
    config = replace(config, max_steps=min(config.max_steps, _most_steps(num_images, config)))
    if "max_steps" not in kept:
        steps = config.max_steps
        if not math.isinf(seconds):
            with _timed(kept, run):
                done, speed = _trial(stage, config, out, TRIAL_SHARE * seconds, reporting)
            # A step may take far longer than the trial was meant to.
            ahead = MARGIN * (seconds - kept["seconds"]) * speed
            steps = max(done, min(_most_steps(num_images, config), done + int(ahead)))
        kept["max_steps"] = int(group.of_first(steps))
        run.save()
    steps = int(kept["steps"] if kept.get("done") else kept["max_steps"])
    config = replace(
        config,
        max_steps=steps,
        sample_every=max(1, steps // SHEETS),
        save_every=max(1, steps // SAVES),
        log_every=min(config.log_every, max(1, steps // 50)),
    )
    left = max(1.0, seconds - kept.get("seconds", 0.0))
    started = time.monotonic()
    # A finished stage too: what it exported may have been lost, with the process or since.
    with _timed(kept, run), reporting(config, out) as report:
        step = train(stage, config, out, report=report, max_seconds=left)
    late = time.monotonic() - started >= left
    kept |= {"steps": step, "done": step >= steps or bool(group.of_first(late))}
    run.save()
    if not kept["done"]:
        raise Interrupted
    return step


@contextmanager
def _timed(kept: dict[str, Any], run: RunFile) -> Iterator[None]:
    """Count the seconds inside towards the stage, those of a part that ends early too."""
    begin, before = time.monotonic(), float(kept.get("seconds", 0.0))
    try:
        yield
    finally:
        kept["seconds"] = before + time.monotonic() - begin
        run.save()


def _most_steps(num_images: int, config: TrainConfig) -> int:
    return max(1, MOST_EPOCHS * num_images // config.batch_size)


def _trial(
    stage: Stage, config: TrainConfig, out: Path, seconds: float, reporting: Reporting
) -> tuple[int, float]:
    """Train for some seconds; return finished steps and steps a second."""
    # No sheet in the trial, it would count as slowness.
    config = replace(config, sample_every=config.max_steps + 1, save_every=config.max_steps + 1)
    ends: list[float] = []
    begin = time.monotonic()
    with reporting(config, out) as shown:

        def report(step: int, measures: dict[str, float]) -> None:
            ends.append(time.monotonic())
            shown(step, measures)

        done = train(stage, config, out, report=report, max_seconds=seconds)
    spent = time.monotonic() - begin
    if done < config.max_steps and group.of_first(spent < seconds):
        raise Interrupted
    if len(ends) > 2:  # the first step warms up
        return done, (len(ends) - 1) / max(1e-9, ends[-1] - ends[0])
    return done, max(1, len(ends)) / max(1e-9, spent)
