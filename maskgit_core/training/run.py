"""What a run leaves in its folder: its whole state, and its log.

Usually all ranks hold the same state, so the first one writes it, in one file, and every rank reads
it. Where the weights are sharded (`fsdp`), all of them write: the tensors into a folder beside
that file, which then holds the rest and the folder's name. So the file is always the switch from
one state to the next, and small runs keep a single file that any tool of PyTorch reads.

A run goes on with any number of ranks, from either form. The folder must be one that all of them
see.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from maskgit_core.config import to_dict
from maskgit_core.distributed import group
from maskgit_core.files import CheckpointError, write_atomically
from maskgit_core.training.guards import LossGuard
from maskgit_core.training.log import METRICS_FILE, keep_metrics
from maskgit_core.training.settings import TrainConfig

if TYPE_CHECKING:
    from maskgit_core.training.loop import Stage

STATE_FILE = "state.pt"
FORMAT = 2  # of the state; 1 had other names of settings and of the optimizer's numbers
SHARDS_FOLDER = "state-{step:07d}"
SHARDS_PATTERN = "state-*"
# These may change when a run is resumed: they change when something happens or how it is computed,
# not what is learned.
FREE_SETTINGS = (
    "max_steps",
    "log_every",
    "sample_every",
    "save_every",
    "grad_accum_steps",
    "precision",
    "compile",
    "checkpoint_blocks",
    "shard",
    "explode_factor",
)

SHOWN_ENTRIES = 12  # of a list of classes

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
        ema: EMA of the network.
        optimizer: of the network's parameters.
        guard: judges losses and lowers the rate.
        shape: the network on the meta device where it is sharded, else None.
    """

    stage: Stage
    config: TrainConfig
    out: Path
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    guard: LossGuard
    shape: nn.Module | None = None

    def save(self, step: int, *, export: bool = True) -> None:
        """Write the state after `step` steps, and the weights for use; all ranks call this.

        Raises:
            CheckpointError: the disk is full; the old files survive.
        """
        state = {
            "format": FORMAT,
            "step": step,
            "config": to_dict(self.config),
            "network": _network_settings(self.stage.model),
            "made_from": self.stage.made_from,
            "stage": self.stage.state(),
            "guard": self.guard.state(),
        }
        if self.shape is None:
            state["model"] = self.stage.model.state_dict()
            state["ema"] = self.ema.state_dict()
            state["optimizer"] = self.optimizer.state_dict()
        else:
            state |= self._save_shards(step)
        if group.is_first():
            write_atomically(self.out / STATE_FILE, lambda path: torch.save(state, path))
            for old in self.out.glob(SHARDS_PATTERN):
                if old.name != state.get("shards"):
                    shutil.rmtree(old, ignore_errors=True)
        if export:
            self.export()

    def export(self) -> None:
        """Write the weights for use; all ranks call this."""
        ema = self.usable_ema()
        if ema is not None:
            self.stage.export(ema, self.out)

    def usable_ema(self) -> nn.Module | None:
        """Return the EMA, whole, on the first rank and None on the others.

        All ranks call this.
        """
        if self.shape is not None:
            from maskgit_core.distributed.fsdp import gathered

            return gathered(self.ema, self.shape)
        return self.ema if group.is_first() else None

    def _tensors(self) -> dict[str, Tensor]:
        """Return what is sharded, or would be, by names without a nesting."""
        found = {f"model.{name}": value for name, value in self.stage.model.state_dict().items()}
        found |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for index, parameter in enumerate(_parameters(self.optimizer)):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if value.ndim:  # counts of steps are the same everywhere
                    found[f"optimizer.{index}.{name}"] = value
        return found

    def _save_shards(self, step: int) -> dict[str, Any]:
        """Write what the ranks hold; returns the rest of the state and where it lies."""
        from maskgit_core.distributed.fsdp import save_shards

        folder = self.out / SHARDS_FOLDER.format(step=step)
        if group.is_first():
            shutil.rmtree(folder, ignore_errors=True)  # of an earlier try
        group.wait()
        save_shards(folder, self._tensors())
        counts = {
            index: {name: value for name, value in held.items() if not value.ndim}
            for index, parameter in enumerate(_parameters(self.optimizer))
            if (held := self.optimizer.state.get(parameter))
        }
        return {"shards": folder.name, "counts": counts}

    def resume(self) -> int:
        """Take the state of the folder; returns its step, 0 where there is none.

        A new run writes its first state at once: there is always one to go back to, and a folder
        that cannot be written to is noticed before the work.

        The weights for use are written again: the run may have ended between the state and them.

        Raises:
            ValueError: a setting, or what the run was made from, differs; all of it is named.
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
        if not group.same_everywhere(step):
            raise CheckpointError(f"{path} is not the same for every rank; out must be shared")
        if group.is_first():
            keep_metrics(self.out / METRICS_FILE, step)
        if step == 0:
            self.save(0, export=False)
        else:
            self.export()
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
        if group.is_first():
            keep_metrics(self.out / METRICS_FILE, step)
        return step

    def log(self, step: int, line: dict[str, float]) -> None:
        """Add a line to the log; the first rank only."""
        if group.is_first():
            # Opened for each line: going back replaces the file.
            with (self.out / METRICS_FILE).open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, **line}) + "\n")

    def _take(self, state: dict[str, Any], *, keep_rate: bool = False) -> None:
        if "shards" in state:
            self._take_shards(self.out / str(state["shards"]), state["counts"])
        elif self.shape is not None:
            self._take_whole(state)
        else:
            self.stage.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        self.stage.load_state(state["stage"])
        self.guard.load_state(state["guard"], keep_rate=keep_rate)

    @torch.no_grad()
    def _take_shards(self, folder: Path, counts: dict[int, dict[str, Tensor]]) -> None:
        """Read slices, of any number of ranks, into what this rank holds."""
        from maskgit_core.distributed.fsdp import load_shards, names_in

        parameters = _parameters(self.optimizer)
        self.optimizer.state.clear()
        for name in names_in(folder):
            kind, _, place = name.partition(".")
            if kind == "optimizer":
                index, _, key = place.partition(".")
                parameter = parameters[int(index)]
                self.optimizer.state[parameter][key] = torch.zeros_like(parameter)
        load_shards(folder, self._tensors())
        for number, held in counts.items():
            own = parameters[number]
            counts_here = {name: value.to(own.device) for name, value in held.items()}
            self.optimizer.state[own].update(counts_here)

    @torch.no_grad()
    def _take_whole(self, state: dict[str, Any]) -> None:
        """Take this rank's slices of a state that was written whole."""
        for part, module in (("model", self.stage.model), ("ema", self.ema)):
            for name, own in module.state_dict().items():
                group.local(own).copy_(group.slice_like(state[part][name], own))
        self.optimizer.state.clear()
        for index, parameter in enumerate(_parameters(self.optimizer)):
            for name, value in state["optimizer"]["state"].get(index, {}).items():
                own = value.to(parameter.device, copy=True)
                if value.ndim:
                    own = torch.zeros_like(parameter)
                    group.local(own).copy_(group.slice_like(value, own))
                self.optimizer.state[parameter][name] = own

    def _check_settings(self, state: dict[str, Any]) -> None:
        if state.get("format") != FORMAT:
            raise _ChangedError(
                f"the run in {self.out} was begun by an older version, whose runs this one cannot "
                "go on with; give another folder, or go on from its checkpoint with init"
            )
        before = state["config"] | state["network"] | state["made_from"]
        now = to_dict(self.config) | _network_settings(self.stage.model) | self.stage.made_from
        bound = {name: value for name, value in now.items() if name not in FREE_SETTINGS}
        complaint = settings_complaint(before, bound, self.out)
        if complaint is not None:
            raise _ChangedError(complaint)


def settings_complaint(before: dict[str, Any], now: dict[str, Any], out: Path) -> str | None:
    """Return what to tell who goes on with a run in `out` with other settings; None if alike.

    A setting that the run did not have yet is no change.
    """
    changed = [
        f"{name} was {_shown(before[name])}, is {_shown(value)}"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    if not changed:
        return None
    return (
        f"the run in {out} was started with other settings: {'; '.join(changed)}; "
        "give it those, or another folder"
    )


def _shown(value: Any) -> str:
    long = isinstance(value, list) and len(value) > SHOWN_ENTRIES
    return f"{value[:SHOWN_ENTRIES]} and {len(value) - SHOWN_ENTRIES} more" if long else str(value)


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return the parameters in the order of the numbers that a state gives them."""
    return [parameter for each in optimizer.param_groups for parameter in each["params"]]


def _network_settings(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return to_dict(config) if is_dataclass(config) else {}


def saved_step(out: Path) -> int:
    """Return how many steps the state in a folder has; 0 where there is none that can be read."""
    with contextlib.suppress(*_UNREADABLE):
        return int(torch.load(out / STATE_FILE, weights_only=True, mmap=True)["step"])
    return 0


class _ChangedError(Exception):
    """A run is resumed with other settings."""
