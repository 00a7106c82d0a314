"""The same class and seed decoded in several ways, side by side and in step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from demo.runs import frames, generate, render
from demo.settings import RequestError, build_config, match_class, parse_seed
from maskgit_core.config import SamplingConfig

# What is compared: the words under the images, and the setting that makes the difference.
CHOICES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "Order": [
        ("surest first", {"order": "confidence"}),
        ("evenly spread", {"order": "halton"}),
        ("at random", {"order": "random"}),
        ("row by row", {"order": "raster"}),
    ],
    "Steps": [(f"{count} steps", {"num_steps": count}) for count in (4, 8, 16, 32)],
    "Schedule": [(word, {"schedule": word}) for word in ("cosine", "arccos", "linear", "square")],
    "Guidance": [(f"guidance {scale}", {"guidance_scale": scale}) for scale in (1, 2, 4, 8)],
}


def choices_for(guided: bool) -> list[str]:
    """What can be compared on a model with or without guidance."""
    return [name for name in CHOICES if guided or name != "Guidance"]


@dataclass(frozen=True)
class CompareRequest:
    """A checked comparison: one class, one seed, a name and a configuration for each image."""

    label: int
    seed: int
    names: tuple[str, ...]
    configs: tuple[SamplingConfig, ...]


def parse_compare(
    model: Any, class_name: Any, seed: Any, what: Any, values: Mapping[str, Any]
) -> CompareRequest:
    """Check a request for a comparison.

    Args:
        model: a `MaskGIT`.
        class_name, seed: as typed.
        what: a key of `CHOICES`.
        values: the settings that all images share.

    Raises:
        RequestError: one sentence that says what to change.
    """
    allowed = choices_for(model.null_label is not None)
    if what not in allowed:
        raise RequestError(f"Choose what to compare: {', '.join(allowed)}.")
    if class_name in (None, "", []):
        raise RequestError("Choose a class first.")
    variants = CHOICES[what]
    return CompareRequest(
        match_class(class_name, list(model.classes)),
        parse_seed(seed),
        tuple(name for name, _ in variants),
        tuple(build_config({**values, **change}) for _, change in variants),
    )


class _Decode:
    """One image on its way, and how long its steps have taken."""

    def __init__(self, model: Any, request: CompareRequest, index: int) -> None:
        self._model = model
        self._steps = model.generate_steps(
            labels=[request.label], config=request.configs[index], seed=request.seed
        )
        self.state: Any = None
        self.images: np.ndarray | None = None
        self.seconds = 0.0
        self.count = 0

    def advance(self) -> bool:
        """Take one step; False if there was none left."""
        started = time.monotonic()
        state = next(self._steps, None)
        self.seconds += time.monotonic() - started
        if state is None:
            return False
        self.state = state
        self.count += 1
        self.images = generate.as_array(self._model.preview(state.tokens))
        return True


def compare_run(
    model: Any, request: CompareRequest
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Decode all images in step; one that is done rests. Yields as `generate.generate_run`.

    Raises:
        RequestError: the run exceeded the time limit.
    """
    started = time.monotonic()
    side = int(model.grid_size)
    total = side * side
    plans = [
        generate.plan_shares(config.schedule, total, total, config.num_steps)
        for config in request.configs
    ]
    run = frames.run_head(
        run=generate.new_run_name(),
        kind="compare",
        model_name=generate.model_name(model),
        grid=(side, side),
        captions=list(request.names),
        plan=max(plans, key=len),
        mask_token_id=model.mask_token_id,
        labels=[request.label] * len(plans),
    )
    yield run, []
    decodes = [_Decode(model, request, index) for index in range(len(plans))]
    while True:
        moved = [decode.advance() for decode in decodes]
        if not any(moved):
            break
        run = frames.add_frame(run, _joint_frame(model, decodes, moved))
        yield run, []
        generate.check_time(started)
    images = render.to_uint8(
        np.concatenate([generate.as_array(model.decode(d.state.tokens)) for d in decodes])
    )
    run["captions"] = [
        f"{name}, {decode.count} steps, {decode.seconds:.1f} s"
        for name, decode in zip(request.names, decodes, strict=True)
    ]
    run = frames.finish(run, images, time.monotonic() - started)
    yield run, [Image.fromarray(image) for image in images]


def _joint_frame(model: Any, decodes: list[_Decode], moved: list[bool]) -> dict[str, Any]:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([generate.as_array(getattr(d.state, name)) for d in decodes])

    new = joined("newly_revealed") & np.array(moved)[:, None, None]
    return frames.step_frame(
        joined("tokens"),
        new,
        joined("confidence"),
        np.concatenate([decode.images for decode in decodes]),
        int(model.mask_token_id),
        (joined("alternative_ids"), joined("alternative_probs")),
    )
