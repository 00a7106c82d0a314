"""Check a request for new images, call the pipeline, hand plain data on. No widgets.

Every generator yields runs as `frames` describes them: the same dict with one more frame a step.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from maskgit_core.config import SamplingConfig
from maskgit_core.live import LivePictures
from maskgit_core.schedules import reveal_counts

from . import frames, render
from .settings import (
    MAX_IMAGES,
    RequestError,
    build_config,
    match_class,
    parse_count,
    parse_seed,
    shown_values,
)

MAX_RUN_SECONDS = 600.0  # nobody waits longer; a forgotten run must not hold the queue
FILL_SECONDS = 10.0  # for the pictures of skipped steps, after the result was shown


@dataclass(frozen=True)
class GenerateRequest:
    """A checked request for new images.

    Args:
        labels: one class index per image.
        seed: image i uses seed + i.
        config: how to decode.
    """

    labels: tuple[int, ...]
    seed: int
    config: SamplingConfig


def new_run_name() -> str:
    """A name that no other run has."""
    return secrets.token_hex(6)


def model_name(model: Any) -> str:
    """What the page and recipes call the model."""
    return str(model.name)


def as_array(value: Any) -> np.ndarray:
    """A tensor or array as a numpy array on the CPU."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def parse_generate(
    model: Any, classes: Sequence[Any] | Any, count: Any, seed: Any, values: Mapping[str, Any]
) -> GenerateRequest:
    """Check a request for new images; with several classes the images take turns.

    Raises:
        RequestError: one sentence that says what to change.
    """
    if classes is None or isinstance(classes, str | int):
        classes = [] if classes in (None, "") else [classes]
    if not classes:
        raise RequestError("Choose at least one class first.")
    number = parse_count(count)
    # A caller may repeat a class a hundred thousand times; only as many as images are looked at.
    indices = [match_class(name, list(model.classes)) for name in list(classes)[:MAX_IMAGES]]
    labels = tuple(indices[i % len(indices)] for i in range(number))
    return GenerateRequest(labels, parse_seed(seed), build_config(values))


def plan_shares(schedule: str, unknown: int, total: int, num_steps: int) -> list[float]:
    """Share of all cells still masked before the first step and after each step."""
    left = unknown
    shares = [left / total]
    for count in reveal_counts(schedule, unknown, num_steps):
        left -= count
        shares.append(left / total)
    return shares


def frame_of(model: Any, step: Any, pictures: LivePictures) -> dict[str, Any]:
    """One frame of a run from one `StepState`, its picture from `pictures`."""
    return frames.step_frame(
        as_array(step.tokens),
        as_array(step.newly_revealed),
        as_array(step.confidence),
        as_array(pictures.of(step.tokens)),
        int(model.mask_token_id),
        (as_array(step.alternative_ids), as_array(step.alternative_probs)),
    )


def check_time(started: float) -> None:
    """Raise RequestError once a run has taken `MAX_RUN_SECONDS`."""
    if time.monotonic() - started > MAX_RUN_SECONDS:
        raise RequestError("This run took too long and was stopped. Ask for fewer images or steps.")


def generate_recipe(model: Any, request: GenerateRequest) -> dict[str, Any]:
    """The settings that make the same images again, as plain data."""
    unique = list(dict.fromkeys(request.labels))
    turns = [unique[i % len(unique)] for i in range(len(request.labels))]
    named = unique if turns == list(request.labels) else request.labels
    return {
        "task": "generate",
        "model": model_name(model),
        "classes": [model.classes[label] for label in named],
        "count": len(request.labels),
        "seed": request.seed,
        **shown_values(request.config),
    }


def generate_run(
    model: Any, request: GenerateRequest
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Decode new images.

    Yields:
        The run, empty at once and then one more frame a step, and the finished images: an empty
        list until the last step. A last time with better pictures, where some came too fast.

    Raises:
        RequestError: the run exceeded `MAX_RUN_SECONDS`.
    """
    started = time.monotonic()
    side = int(model.grid_size)
    total = side * side
    run = frames.run_head(
        run=new_run_name(),
        kind="generate",
        model_name=model_name(model),
        grid=(side, side),
        captions=[
            f"{model.classes[label]}, seed {request.seed + i}"
            for i, label in enumerate(request.labels)
        ],
        plan=plan_shares(request.config.schedule, total, total, request.config.num_steps),
        mask_token_id=model.mask_token_id,
        labels=request.labels,
        recipe=generate_recipe(model, request),
    )
    yield run, []
    steps = model.generate_steps(
        labels=list(request.labels), config=request.config, seed=request.seed
    )
    yield from follow_steps(model, run, steps, started)


def follow_steps(
    model: Any, run: dict[str, Any], steps: Iterator[Any], started: float
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Add a frame for each step to a run, then its finished images; yields as `generate_run`."""
    pictures = LivePictures(model)
    for step in steps:
        run = frames.add_frame(run, frame_of(model, step, pictures))
        yield run, []
        check_time(started)
    images = render.to_uint8(as_array(pictures.images))
    run = frames.finish(run, images, time.monotonic() - started)
    results = [Image.fromarray(image) for image in images]
    yield run, results
    yield from fill_in(run, results, pictures)


def fill_in(
    run: dict[str, Any], results: list[Image.Image], pictures: LivePictures
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Yield a finished run once more where steps were not decoded while it went on.

    The result is on the page already; this is for the player and the files to keep. It takes no
    longer than the run itself did, so that a slow model does not hold the queue.
    """
    if pictures.skipped:
        seconds = max(1.0, min(FILL_SECONDS, run["seconds"]))
        late = {step: as_array(images) for step, images in pictures.fill(seconds)}
        yield frames.with_pictures(run, late), results
