"""The training loop of both stages: rates, running mean of the weights, logs, exact resume.

A stage knows its network, its loss and its pictures; the loop knows time. All randomness of a step
comes from (seed, step), so a run that was stopped and resumed repeats the same numbers.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from maskgit_core.checkpoint import CheckpointError, write_atomically
from maskgit_core.config import TrainConfig, from_dict, to_dict
from maskgit_core.optim import build_optimizer

STATE_FILE = "state.pt"
METRICS_FILE = "metrics.jsonl"
# These may change when a run is resumed: they change when something happens, not what is learned.
FREE_SETTINGS = ("max_steps", "log_every", "sample_every", "save_every")

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

Report = Callable[[int, dict[str, float]], None]


class Stage(Protocol):
    """What the loop asks of a training stage."""

    model: nn.Module

    def before_step(self, step: int, ema: nn.Module) -> None:
        """Prepare step `step` (0-based), for example change the phase of the training."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a step's batch and the measures to log."""

    def after_step(self, step: int, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """React to an update."""

    def metrics(self, ema: nn.Module) -> dict[str, float]:
        """Return the measures on held-out data."""

    def sheet(self, ema: nn.Module) -> Image.Image:
        """Return a picture that shows where training stands."""

    def export(self, ema: nn.Module, folder: Path) -> None:
        """Write the weights for use."""

    def state(self) -> dict[str, Any]:
        """Return what else is needed to resume exactly."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""


def rate_factor(step: int, config: TrainConfig) -> float:
    """Return the share of the peak rate at a step: linear warm-up, then a cosine to min_rate."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    span = max(1, config.max_steps - config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / span)
    return config.min_rate + (1 - config.min_rate) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def update_ema_(ema: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the running mean towards the model; early steps move it faster."""
    decay = min(decay, (1 + step) / (10 + step))
    means, values = list(ema.parameters()), list(model.parameters())
    torch._foreach_lerp_(means, values, 1 - decay)
    for mean, value in zip(ema.buffers(), model.buffers(), strict=True):
        mean.copy_(value)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or Ctrl-C sets; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, previous[number])

    try:
        for number in previous:
            signal.signal(number, handle)
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(
    stage: Stage,
    config: TrainConfig,
    out: Path,
    *,
    report: Report | None = None,
    max_seconds: float = math.inf,
) -> int:
    """Train until `max_steps`, a signal or the time limit; resume where `out` holds a state.

    Args:
        stage: the network, its loss and its pictures.
        config: rates, lengths and intervals.
        out: folder of the run: state, metrics as JSON lines, sheets, exported weights.
        report: called after every step with the number of finished steps and the last measures.
        max_seconds: stop cleanly after this long; the rates do not depend on it.

    Returns:
        The number of finished steps, those of earlier parts of the run included.

    Raises:
        ValueError: a setting differs from the run's that is being resumed.
        CheckpointError: a state that cannot be read, or a full disk (the old state survives).
    """
    out.mkdir(parents=True, exist_ok=True)
    model = stage.model
    ema = copy.deepcopy(model).requires_grad_(False)
    optimizer = build_optimizer(
        model,
        learning_rate=config.learning_rate,
        matrix_learning_rate=config.matrix_learning_rate,
        weight_decay=config.weight_decay,
    )
    step = _resume(stage, ema, optimizer, config, out)
    started = time.monotonic()
    seconds = images = 0.0
    with stop_on_signal() as stopping, (out / METRICS_FILE).open("a", encoding="utf-8") as log:
        while step < config.max_steps:
            begin = time.monotonic()
            stage.before_step(step, ema)
            loss, measures = stage.loss(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
            factor = rate_factor(step, config)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            update_ema_(ema, model, config.ema_decay, step)
            stage.after_step(step, ema, optimizer)
            step += 1
            seconds += time.monotonic() - begin
            images += config.batch_size
            done = step == config.max_steps
            late = stopping.is_set() or time.monotonic() - started > max_seconds
            line: dict[str, float] = {}
            if step % config.log_every == 0 or done:
                line = {"loss": loss.item(), "grad_norm": norm.item(), "rate": factor}
                line |= {name: float(value) for name, value in measures.items()}
                line["images_per_second"] = images / seconds
                seconds = images = 0.0
            if step % config.sample_every == 0 or done:
                line |= stage.metrics(ema)
                picture = stage.sheet(ema)
                write_atomically(
                    out / f"sheet-{step:07d}.png", lambda path, p=picture: p.save(path, "PNG")
                )
            if line:
                log.write(json.dumps({"step": step, **line}) + "\n")
                log.flush()
            if step % config.save_every == 0 or done or late:
                _save(stage, ema, optimizer, config, out, step)
            if report is not None:
                report(step, line)
            if late:
                break
    return step


def _save(
    stage: Stage,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    out: Path,
    step: int,
) -> None:
    state = {
        "step": step,
        "config": to_dict(config),
        "network": _network_settings(stage.model),
        "model": stage.model.state_dict(),
        "ema": ema.state_dict(),
        "optimizer": optimizer.state_dict(),
        "stage": stage.state(),
    }
    write_atomically(out / STATE_FILE, lambda path: torch.save(state, path))
    stage.export(ema, out)


def _resume(
    stage: Stage,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    out: Path,
) -> int:
    path = out / STATE_FILE
    if not path.is_file():
        _keep_metrics(out / METRICS_FILE, 0)
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        step = int(state["step"])
        saved = to_dict(from_dict(TrainConfig, state["config"])) | state.get("network", {})
        _check_settings(saved, to_dict(config) | _network_settings(stage.model), out)
        stage.model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        stage.load_state(state["stage"])
    except _ChangedError as error:
        raise ValueError(str(error)) from None
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be resumed: {error}") from error
    _keep_metrics(out / METRICS_FILE, step)
    return step


def _network_settings(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "config", None)
    return to_dict(config) if is_dataclass(config) else {}


class _ChangedError(Exception):
    """A run is resumed with other settings."""


def _check_settings(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    changed = [
        f"{name} was {before[name]}, is {now[name]}"
        for name in now
        if name not in FREE_SETTINGS and name in before and now[name] != before[name]
    ]
    if changed:
        raise _ChangedError(
            f"the run in {out} was started with other settings: {'; '.join(changed)}; "
            "give it those, or another folder"
        )


def _keep_metrics(path: Path, step: int) -> None:
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
