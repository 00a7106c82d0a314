"""The training loop of both stages: rates, EMA of the weights, logs, exact resume.

A stage knows its network, its loss and its pictures; the loop knows time. All randomness of a step
comes from (seed, step), so a run that was stopped and resumed repeats the same numbers, and several
processes that share a batch compute what one would: the loss is a sum over the parts of a batch.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskgit_core.data.photos import Part
from maskgit_core.devices.malloc import kept_memory
from maskgit_core.devices.precision import bfloat16_pays
from maskgit_core.distributed import group
from maskgit_core.files import write_atomically
from maskgit_core.training.guards import (
    LossGuard,
    remove_leftovers,
    run_lock,
    stop_on_signal,
)
from maskgit_core.training.log import METRICS_FILE
from maskgit_core.training.optim import (
    build_optimizer,
    clip_gradients_,
    rate_factor,
    update_ema_,
)
from maskgit_core.training.run import STATE_FILE, Run
from maskgit_core.training.settings import TrainConfig

__all__ = ["METRICS_FILE", "STATE_FILE", "Stage", "rate_factor", "stop_on_signal", "train"]

Report = Callable[[int, dict[str, float]], None]

logger = logging.getLogger(__name__)


class Stage(Protocol):
    """What the loop asks of a training stage.

    Attributes:
        model: the network.
        watched: the measure that must not explode, `loss` or one that `loss` returns.
        may_leave_unused: whether a step may leave parameters without a gradient.
        sharded: whether the ranks hold slices of the weights.
        data_seconds: time spent on making batches; the loop sets it back to 0.
        made_from: what else a run is bound to: classes, fingerprints of data and other networks.
    """

    model: nn.Module
    watched: str
    may_leave_unused: bool
    sharded: bool
    data_seconds: float
    made_from: dict[str, Any]

    def before_step(self, step: int, ema: nn.Module) -> None:
        """Prepare step `step` (0-based), for example change the phase of the training."""

    def loss(self, step: int, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a part of a step's batch and the measures to log.

        Both are shares: those of all parts add up to the loss and measures of the batch.
        """

    def after_step(self, step: int, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """React to an update."""

    def metrics(self, ema: nn.Module) -> dict[str, float]:
        """Return the measures on held-out data; called on the first rank only."""

    def sheet(self, ema: nn.Module) -> Image.Image:
        """Return a picture that shows where training stands; called on the first rank only."""

    def export(self, ema: nn.Module, folder: Path) -> None:
        """Write the weights for use; called on the first rank only."""

    def state(self) -> dict[str, Any]:
        """Return what else is needed to resume exactly, the same on every rank."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""


class _Step(nn.Module):
    """A stage's loss as the forward pass that DistributedDataParallel looks at."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.model = stage.model
        self.of_part = stage.loss

    def forward(self, step: int, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        return self.of_part(step, part)


def own_parts(config: TrainConfig) -> list[Part]:
    """Return the parts of every batch that this process computes, one after another.

    Raises:
        ValueError: batches too small for so many parts.
    """
    size, times = group.size(), config.grad_accum_steps
    if config.batch_size < size * times:
        raise ValueError(
            f"batch_size must be at least {size * times}, for {size} processes with "
            f"grad_accum_steps {times}; got {config.batch_size}"
        )
    first = group.rank() * times
    return [Part(first + place, size * times) for place in range(times)]


def autocast_for(precision: str, device: torch.device) -> torch.autocast:
    """Return the context that a loss is computed in.

    Args:
        precision: `auto` is bfloat16 where a GPU has it, else float32.
        device: where the network is.

    Raises:
        ValueError: bfloat16 on a device that has no instructions for it; many CPUs would take
            hundreds of times longer.
    """
    asked = precision == "bfloat16" or (precision == "auto" and device.type != "cpu")
    able = asked and bfloat16_pays(device.type)
    if precision == "bfloat16" and not able:
        raise ValueError(
            f"precision must be auto or float32 where a {device.type} has no bfloat16; got bfloat16"
        )
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


def train(
    stage: Stage,
    config: TrainConfig,
    out: Path,
    *,
    report: Report | None = None,
    max_seconds: float = math.inf,
) -> int:
    """Train until `max_steps`, a signal or the time limit; resume where `out` holds a state.

    With a process group all its processes call this together: each computes its parts of every
    batch, the first writes. A signal to any of them stops all of them at the same step. A handler
    that a program had set for it is called when the state has been written.

    Args:
        stage: the network, its loss and its pictures.
        config: rates, lengths and intervals.
        out: folder of the run: state, metrics as JSON lines, sheets, exported weights.
        report: called after every step with the number of finished steps and the last measures;
            after a return to an older state, with its step and `rollback`, how many there were.
        max_seconds: stop cleanly after this long; the rates do not depend on it.

    Returns:
        The number of finished steps, those of earlier parts of the run included.

    Raises:
        ValueError: a setting differs from the run's that is being resumed, another run writes to
            `out`, or the loss exploded too often.
        CheckpointError: a state that cannot be read, or a full disk (the old state survives).
        RankLostError: another process has ended; the last saved state is whole.
    """
    parts = own_parts(config)
    out.mkdir(parents=True, exist_ok=True)
    lock = run_lock(out) if group.is_first() else nullcontext()
    with group.lost_ranks_named(), lock, kept_memory():
        if group.is_first():
            remove_leftovers(out)
        return _Loop(stage, config, out, parts).run(report, max_seconds)


class _Loop:
    """The parts of one call of `train`."""

    def __init__(self, stage: Stage, config: TrainConfig, out: Path, parts: list[Part]) -> None:
        self.stage, self.config, self.parts = stage, config, parts
        model = stage.model
        self.device = next(model.parameters()).device
        self.autocast = autocast_for(config.precision, self.device)
        group.broadcast_([*model.parameters(), *model.buffers()])
        ema = copy.deepcopy(model).requires_grad_(False)
        shape = None
        self.sharded = stage.sharded and group.size() > 1
        if self.sharded:
            from maskgit_core.distributed.fsdp import shard_

            shape = copy.deepcopy(model).to("meta")
            for network in (model, ema):
                shard_(network, self.device)
        optimizer = build_optimizer(
            model,
            learning_rate=config.learning_rate,
            matrix_learning_rate=config.matrix_learning_rate,
            weight_decay=config.weight_decay,
        )
        guard = LossGuard(config.explode_factor)
        self.state = Run(stage, config, out, ema, optimizer, guard, shape)
        self.network: nn.Module = _Step(stage)
        if group.size() > 1 and not self.sharded:
            self.network = DistributedDataParallel(
                self.network,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=stage.may_leave_unused,
            )

    def run(self, report: Report | None, max_seconds: float) -> int:
        state, config, stage = self.state, self.config, self.stage
        step = state.resume()
        started = time.monotonic()
        seconds = images = stage.data_seconds = 0.0
        with stop_on_signal(again=group.size() == 1) as stopping:
            while step < config.max_steps:
                begin = time.monotonic()
                stage.before_step(step, state.ema)
                share, measures = self._gradients(step)
                length = clip_gradients_(stage.model, config.grad_clip or math.inf)
                late = group.is_first() and time.monotonic() - started > max_seconds
                loss, watched, norm, stop = self._agree(
                    share, measures, length, stopping.is_set() or late
                )
                complaint = state.guard.complaint(loss, watched, norm)
                if complaint is not None:
                    step = self._roll_back(complaint, step, report)
                    continue
                factor = self._update(step)
                step += 1
                seconds += time.monotonic() - begin
                images += config.batch_size
                done = step == config.max_steps
                line: dict[str, float] = {}
                if step % config.log_every == 0 or done:
                    line = {"loss": loss, "grad_norm": norm, "rate": factor}
                    line |= _summed(measures)
                    line["images_per_second"] = images / seconds
                    line["data_share"] = stage.data_seconds / seconds
                    seconds = images = stage.data_seconds = 0.0
                if step % config.sample_every == 0 or done:
                    line |= self._picture(step)
                if line:
                    state.log(step, line)
                if step % config.save_every == 0 or done or stop:
                    state.save(step)
                if report is not None:
                    report(step, line)
                if stop:
                    break
        return step

    def _gradients(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the gradients of a step; returns this process's share in loss and measures."""
        self.state.optimizer.zero_grad(set_to_none=True)
        total: Tensor | None = None
        shares: dict[str, Tensor] = {}
        for place, part in enumerate(self.parts):
            last = place == len(self.parts) - 1
            # Slices of gradients are summed at once: to keep them whole would take the memory.
            at_once = last or group.size() == 1 or self.sharded
            with nullcontext() if at_once else self.network.no_sync():
                with self.autocast, _compiler_named():
                    loss, measures = self.network(step, part)
                # Both ways to share take the mean over the processes; the loss is a sum.
                (loss * group.size()).backward()
            total = loss.detach() if total is None else total + loss.detach()
            for name, value in measures.items():
                shares[name] = shares[name] + value if name in shares else value
        assert total is not None  # there is a part
        return total, shares

    def _agree(
        self, loss: Tensor, measures: dict[str, Tensor], norm: Tensor, stop: bool
    ) -> tuple[float, float, float, bool]:
        """Return loss, watched measure and gradient norm of the batch, and whether to stop."""
        watched = loss if self.stage.watched == "loss" else measures[self.stage.watched]
        values = torch.tensor(
            [float(loss), float(watched), float(stop), float(norm)], dtype=torch.float64
        )
        loss_sum, watched_sum, stops, norms = group.sum_(values).tolist()
        return loss_sum, watched_sum, norms / group.size(), stops > 0

    def _update(self, step: int) -> float:
        """Take a step; returns the share of the peak rate."""
        config, state = self.config, self.state
        factor = rate_factor(step, config) * state.guard.rate_scale
        for param_group in state.optimizer.param_groups:
            param_group["lr"] = param_group["peak"] * factor
        state.optimizer.step()
        update_ema_(state.ema, self.stage.model, config.ema_decay, step)
        self.stage.after_step(step, state.ema, state.optimizer)
        return factor

    def _roll_back(self, complaint: str, step: int, report: Report | None) -> int:
        state, guard = self.state, self.state.guard
        back = state.roll_back(complaint, step)
        line = {"rollback": guard.rollbacks, "from_step": step + 1, "rate_scale": guard.rate_scale}
        state.log(back, line)
        if group.is_first():
            logger.warning(
                "step %d was not taken: %s; back to step %d with %g times the rate",
                *(step + 1, complaint, back, guard.rate_scale),
            )
        if report is not None:
            report(back, line)
        return back

    def _picture(self, step: int) -> dict[str, float]:
        ema = self.state.usable_ema()
        if ema is None:
            return {}
        measures = self.stage.metrics(ema)
        picture = self.stage.sheet(ema)
        path = self.state.out / f"sheet-{step:07d}.png"
        write_atomically(path, lambda part: picture.save(part, "PNG"))
        return measures


@contextmanager
def _compiler_named() -> Iterator[None]:
    """Turn what torch.compile raises where there is no compiler into one line."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"compile must be off, the compiler fails here: {first}") from error


def _summed(measures: dict[str, Tensor]) -> dict[str, float]:
    names: Sequence[str] = sorted(measures)
    values = torch.tensor([float(measures[name]) for name in names], dtype=torch.float64)
    return dict(zip(names, group.sum_(values).tolist(), strict=True))
