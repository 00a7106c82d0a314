"""From a request to what the page shows of it while it is decoded."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from demo.runs import frames, render
from demo.runs.edit import square_preview
from demo.serving.request import Request
from demo.serving.steps import Decode, DecodedStep, LatePictures, Place
from maskgit_core.editing.plan import finish_edit


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Args:
        run: as plain data, see `frames`.
        log: the same as lines for the player, which only ever grows at its end.
        images: the finished images; empty until there are.
    """

    run: dict[str, Any]
    log: str
    images: tuple[Image.Image, ...] = ()

    def grown(self, event: dict[str, Any], images: tuple[Image.Image, ...] = ()) -> Progress:
        """With one more event."""
        run, log = frames.grown(self.run, event), self.log + frames.log_line(event)
        return replace(self, run=run, log=log, images=images or self.images)


def follow(request: Request, decode: Decode) -> Generator[Progress, None, None]:
    """Decode a request and yield what the page shows.

    Args:
        request: what to decode.
        decode: who decodes; `Runner.decode`, or `decode_alone` for this thread.

    Yields:
        The run without a step, its place in the queue while it waits, then one more frame a step,
        and the finished images. Then better pictures, a few at a time, where some came too fast.

    Raises:
        RequestError: it cannot be taken, or takes too long.
        JobFailed: an unexpected error.
    """
    head = frames.request_head(request)
    progress = Progress(frames.new_run(head), frames.log_line(head))
    items = decode(request)  # outside: of a job that is refused nothing is shown
    started = time.monotonic()
    try:
        for item in items:
            if isinstance(item, Place):
                started = time.monotonic()
                if item.number:
                    progress = progress.grown({"waiting": item.number})
            elif isinstance(item, LatePictures):
                late = {number: frames.as_array(images) for number, images in item.images.items()}
                progress = progress.grown(frames.late_pictures(progress.run, late))
            else:
                progress = progress.grown({"frame": _frame(item, request.mask_token_id)})
            yield progress
            if isinstance(item, DecodedStep) and item.last:
                shown, images = finished(request, item.images)
                event = frames.result_event(shown, time.monotonic() - started)
                if item.seconds:
                    event["captions"] = _timed(request, item.seconds)
                progress = progress.grown(event, tuple(images))
                yield progress
    except Exception:
        if not progress.run["frames"]:
            yield progress.grown({"waiting": 0})  # whoever was shown a place has none any more
        raise


def _frame(step: DecodedStep, mask_token_id: int) -> dict[str, Any]:
    state = step.state
    return frames.step_frame(
        frames.as_array(state.tokens),
        frames.as_array(state.newly_revealed),
        frames.as_array(state.confidence),
        frames.as_array(step.images),
        mask_token_id,
        (frames.as_array(state.alternative_ids), frames.as_array(state.alternative_probs)),
    )


def _timed(request: Request, seconds: tuple[float, ...]) -> list[str]:
    return [
        f"{caption}, {steps} steps, {taken:.1f} s"
        for caption, steps, taken in zip(request.captions, request.num_steps, seconds, strict=True)
    ]


def finished(request: Request, images: Tensor) -> tuple[np.ndarray, list[Image.Image]]:
    """What the player shows of finished images, uint8 (B, H, W, 3), and the results themselves.

    Args:
        request: that they were made for.
        images: float32 (B, 3, H, W) in [-1, 1].
    """
    plan = request.plan
    if plan is None:
        pixels = render.to_uint8(frames.as_array(images))
        return pixels, [Image.fromarray(image) for image in pixels]
    photos = [finish_edit(plan, images[i : i + 1]) for i in range(len(images))]
    return np.stack([np.asarray(square_preview(photo, plan)) for photo in photos]), photos
