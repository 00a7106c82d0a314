"""What a run leaves in its folder: one file with its whole state, and its log.

All ranks hold the same state, so the first one writes it and every rank reads it; a run goes on
with any number of them. The folder must be one that all of them see.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maskgit_core import distributed
from maskgit_core.checkpoint import CheckpointError, write_atomically
from maskgit_core.config import TrainConfig, from_dict, to_dict
from maskgit_core.guards import LossGuard

if TYPE_CHECKING:
    from maskgit_core.training import Stage

STATE_FILE = "state.pt"
METRICS_FILE = "metrics.jsonl"
# These may change when a run is resumed: they change when something happens or how it is computed,
# not what is learned.
FREE_SETTINGS = (
    "max_steps",
    "log_every",
    "sample_every",
    "save_every",
    "accumulate_steps",
    "precision",
    "compile",
    "checkpoint_blocks",
    "explode_factor",
)

_UNREADABLE = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
)


@dataclass
class Run:
    """All that changes while a stage is trained, and the folder where it is kept.

    Attributes:
        stage: the network and its loss.
        config: the settings, to compare with those of a state.
        out: the folder.
        ema: running mean of the network.
        optimizer: of the network's parameters.
        guard: judges losses and lowers the rate.
    """

    stage: Stage
    config: TrainConfig
    out: Path
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    guard: LossGuard

    def save(self, step: int, *, export: bool = True) -> None:
        """Write the state after `step` steps, and the weights for use; the first rank only.

        Raises:
            CheckpointError: the disk is full; the old files survive.
        """
        if not distributed.is_first():
            return
        state = {
            "step": step,
            "config": to_dict(self.config),
            "network": _network_settings(self.stage.model),
            "model": self.stage.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stage": self.stage.state(),
            "guard": self.guard.state(),
        }
        write_atomically(self.out / STATE_FILE, lambda path: torch.save(state, path))
        if export:
            self.stage.export(self.ema, self.out)

    def resume(self) -> int:
        """Take the state of the folder; returns its step, 0 where there is none.

        A new run writes its first state at once: there is always one to go back to, and a folder
        that cannot be written to is noticed before the work.

        Raises:
            ValueError: a setting differs from the run's; all of them are named.
            CheckpointError: the state cannot be read, or differs between the ranks.
        """
        path = self.out / STATE_FILE
        step = 0
        if path.is_file():
            try:
                state = _read(path)
                step = int(state["step"])
                # Nothing was learned at step 0, so nothing is bound to those settings.
                if step:
                    self._check_settings(state)
                    self._take(state)
            except _ChangedError as error:
                raise ValueError(str(error)) from None
            except _UNREADABLE as error:
                raise CheckpointError(f"{path} cannot be resumed: {error}") from error
        if not distributed.same_everywhere(step):
            raise CheckpointError(f"{path} is not the same for every rank; out must be shared")
        if distributed.is_first():
            keep_metrics(self.out / METRICS_FILE, step)
        if step == 0:
            self.save(0, export=False)
        return step

    def roll_back(self, complaint: str, step: int) -> int:
        """Go back to the last saved state with a lower rate; returns its step.

        Raises:
            ValueError: the run went back too often.
            CheckpointError: the state cannot be read.
        """
        self.guard.rolled_back(complaint, step)
        path = self.out / STATE_FILE
        try:
            state = _read(path)
            self._take(state, keep_rate=True)
            step = int(state["step"])
        except _UNREADABLE as error:
            raise CheckpointError(f"{path} cannot be resumed: {error}") from error
        if distributed.is_first():
            keep_metrics(self.out / METRICS_FILE, step)
        return step

    def log(self, step: int, line: dict[str, float]) -> None:
        """Add a line to the log; the first rank only."""
        if distributed.is_first():
            # Opened for each line: going back replaces the file.
            with (self.out / METRICS_FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, **line}) + "\n")

    def _take(self, state: dict[str, Any], *, keep_rate: bool = False) -> None:
        self.stage.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stage.load_state(state["stage"])
        # States of runs that began before there was a guard have none.
        self.guard.load_state(state.get("guard", {}), keep_rate=keep_rate)

    def _check_settings(self, state: dict[str, Any]) -> None:
        before = to_dict(from_dict(TrainConfig, state["config"])) | state.get("network", {})
        now = to_dict(self.config) | _network_settings(self.stage.model)
        bound = {name: value for name, value in now.items() if name not in FREE_SETTINGS}
        complaint = settings_complaint(before, bound, self.out)
        if complaint is not None:
            raise _ChangedError(complaint)


def settings_complaint(before: dict[str, Any], now: dict[str, Any], out: Path) -> str | None:
    """Return what to tell who goes on with a run in `out` with other settings; None if alike.

    A setting that the run did not have yet is no change.
    """
    changed = [
        f"{name} was {before[name]}, is {value}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    if not changed:
        return None
    return (
        f"the run in {out} was started with other settings: {'; '.join(changed)}; "
        "give it those, or another folder"
    )


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _network_settings(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return to_dict(config) if is_dataclass(config) else {}


class _ChangedError(Exception):
    """A run is resumed with other settings."""


def keep_metrics(path: Path, step: int) -> None:
    """Leave the lines up to a step: later ones are written again, a torn one is dropped."""
    kept = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                keep = json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError):
                continue
            if keep:
                kept.append(line + "\n")
    write_atomically(path, lambda part: Path(part).write_text("".join(kept), encoding="utf-8"))
