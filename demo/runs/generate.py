"""Check a request for new images, call the pipeline, hand plain data on. No widgets.

Every generator yields runs as `frames` describes them: the same dict with one more frame a step.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from demo.runs import frames, render
from demo.serving.decoding import (
    Decode,
    Decoded,
    DecodedStep,
    DecodeRequest,
    LatePictures,
    Place,
    decode_alone,
    new_grid,
)
from demo.settings import (
    MAX_IMAGES,
    RequestError,
    build_config,
    match_class,
    parse_count,
    parse_seed,
    shown_values,
)
from maskgit_core.config import SamplingConfig
from maskgit_core.recipes import class_turns
from maskgit_core.schedules import reveal_counts

MAX_RUN_SECONDS = 600.0  # nobody waits longer; a forgotten run must not hold the queue


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


def frame_of(step: DecodedStep, mask_token_id: int) -> dict[str, Any]:
    """One frame of a run from one step."""
    state = step.state
    return frames.step_frame(
        as_array(state.tokens),
        as_array(state.newly_revealed),
        as_array(state.confidence),
        as_array(step.images),
        mask_token_id,
        (as_array(state.alternative_ids), as_array(state.alternative_probs)),
    )


def check_time(started: float) -> None:
    """Raise RequestError once a run has taken `MAX_RUN_SECONDS`."""
    if time.monotonic() - started > MAX_RUN_SECONDS:
        raise RequestError("This run took too long and was stopped. Ask for fewer images or steps.")


def generate_recipe(model: Any, request: GenerateRequest) -> dict[str, Any]:
    """The settings that make the same images again, as plain data."""
    return {
        "task": "generate",
        "model": model_name(model),
        "classes": class_turns([model.classes[label] for label in request.labels]),
        "count": len(request.labels),
        "seed": request.seed,
        **shown_values(request.config),
        **precision_of(model),
    }


def precision_of(model: Any) -> dict[str, str]:
    """What a recipe says of the precision: nothing where it is the usual one."""
    precision = getattr(model, "precision", "float32")
    return {} if precision == "float32" else {"precision": precision}


def generate_run(
    model: Any, request: GenerateRequest, decode: Decode | None = None
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Decode new images.

    Args:
        model: a `MaskGIT`.
        request: what to make.
        decode: who decodes; None is this thread.

    Yields:
        The run, empty at once, with its place in line while it waits, and then one more frame a
        step; and the finished images: an empty list until the last step. Then again with better
        pictures, a few at a time, where some came too fast.

    Raises:
        RequestError: the run exceeded `MAX_RUN_SECONDS`, or cannot be taken.
    """
    decode = decode or decode_alone(model)
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
    tokens = new_grid(model, request.labels)
    work = DecodeRequest("generate", tokens, request.labels, request.config, request.seed)
    del model  # a run that waits must not keep it in memory
    yield from follow_steps(run, decode(work))


def as_images(images: Tensor) -> tuple[np.ndarray, list[Image.Image]]:
    """Finished images float32 (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3), and as images."""
    pixels = render.to_uint8(as_array(images))
    return pixels, [Image.fromarray(image) for image in pixels]


def follow_steps(
    run: dict[str, Any],
    steps: Iterator[Decoded],
    finished: Callable[[Tensor], tuple[np.ndarray, list[Image.Image]]] = as_images,
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Add a frame for each step to a run, then its finished images; yields as `generate_run`.

    Args:
        run: the head.
        steps: what is decoded.
        finished: makes of the finished images what the player shows, and the results.

    Raises:
        RequestError: it has taken longer than `MAX_RUN_SECONDS`.
    """
    started = time.monotonic()
    results: list[Image.Image] = []
    try:
        for step in steps:
            if isinstance(step, Place):
                started = time.monotonic()
                yield (run if step.number == 0 else {**run, "waiting": step.number}), []
            elif isinstance(step, LatePictures):
                late = {number: as_array(images) for number, images in step.images.items()}
                run = frames.with_pictures(run, late)
                yield run, results
            else:
                run = frames.add_frame(run, frame_of(step, run["mask_id"]))
                yield run, []
                check_time(started)
                if step.last:
                    shown, results = finished(step.images)
                    run = frames.finish(run, shown, time.monotonic() - started)
                    yield run, results
    except Exception:
        if not run["frames"]:
            yield run, []  # whoever was shown a place in line has none any more
        raise
