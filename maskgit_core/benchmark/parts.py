"""The parts of `benchmark` that run in this process: networks, decoding, editing.

A part is a list of jobs, (what it is, a call that returns rows), so that a progress bar can count
them. Ours and the plain reference loop are timed alternately.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskgit_core.benchmark.models import is_random, load_model
from maskgit_core.benchmark.setup import Bench, Job, compare
from maskgit_core.benchmark.timing import (
    Row,
    Spread,
    gflop_of_matrix_product,
    gflop_of_pass,
    in_turn,
    matrix_product,
    seconds,
    spread,
)
from maskgit_core.decoding.previews import LivePictures
from maskgit_core.editing.plan import finish_edit

LIVE_STEPS = 12
LIVE_BATCH = 4


def load_jobs(bench: Bench) -> list[Job]:
    """Time from a checkpoint's name to a model that is ready (random weights: to build it)."""
    what = "build with random weights" if is_random(bench.name) else "from a checkpoint"
    return [(what, lambda: [compare(bench, "load", what, lambda: load_model(bench.name), None)])]


def tokenizer_jobs(bench: Bench) -> list[Job]:
    """Images a second of encoder and decoder."""
    model = bench.model

    def job(verb: str, batch: int) -> list[Row]:
        call = {
            "encode": lambda: model.encode(bench.images(batch)),
            "decode": lambda: model.decode(bench.finished(batch)),
        }[verb]
        expected = (batch * bench.image_seconds, 0.0)
        row = compare(bench, "tokenizer", f"{verb}, batch {batch}", call, None, expected=expected)
        if row.value is None:
            return [row]
        return [Row(row.part, row.case, "images/s", row.value.per(batch))]

    return [
        (f"tokenizer: {verb}, batch {batch}", lambda v=verb, b=batch: job(v, b))
        for verb in ("encode", "decode")
        for batch in bench.batches
    ]


def forward_jobs(bench: Bench) -> list[Job]:
    """One pass over all positions: time, and work done beside the machine's own peak."""

    @torch.inference_mode()
    def job(batch: int) -> list[Row]:
        tokens, labels = bench.inputs(batch)
        work = gflop_of_pass(bench.model.transformer, tokens, labels)
        network = bench.model.fast_transformer()
        calls = [matrix_product(), lambda: network(tokens, labels)]
        if bench.plain is not None:
            calls.append(lambda: bench.plain(tokens, labels))
        peak, ours, *plain = map(spread, in_turn(calls, bench.repeats, bench.limit))
        speed, peak = ours.per(work), peak.per(gflop_of_matrix_product())
        share = 100 * speed.high / peak.high
        other = plain[0].times(1e3) if plain else None
        ratio = plain[0].median / ours.median if plain else None
        case = f"batch {batch}"
        return [
            Row("forward", case, "ms", ours.times(1e3), other, ratio),
            Row("forward", case, "GFLOP/s", speed, plain[0].per(work) if plain else None),
            Row("forward", f"{case}: matrix product", "GFLOP/s", peak),
            Row(
                "forward",
                f"{case}: share of the product's peak",
                "%",
                Spread(share, share, share, ours.repeats),
                note="fastest run of each",
            ),
        ]

    return [(f"forward: batch {batch}", lambda b=batch: job(b)) for batch in bench.batches]


def decode_jobs(bench: Bench) -> list[Job]:
    """Whole decodings: class to image, and the part of it that finds the tokens."""
    guidances = (False, True) if bench.model.null_label is not None else (False,)
    return [
        (
            f"decode: {steps} steps, {'guided, ' if guided else ''}batch {batch}",
            lambda s=steps, g=guided, b=batch: _decode(bench, s, g, b),
        )
        for batch in bench.batches
        for guided in guidances
        for steps in bench.steps
    ]


@torch.inference_mode()
def _decode(bench: Bench, steps: int, guided: bool, batch: int) -> list[Row]:
    config, labels = bench.config(steps, guided=guided), bench.labels(batch)
    without_images: dict[str, list[float]] = {"ours": [], "plain": []}

    def ours() -> None:
        begin = time.perf_counter()
        for state in bench.model.generate_steps(labels, config, seed=0):
            tokens = state.tokens
        without_images["ours"].append(time.perf_counter() - begin)
        bench.model.decode(tokens)

    def plain() -> None:
        begin, drawing = time.perf_counter(), 0.0
        decode_tokens = bench.model.tokenizer.decode_tokens

        def decode(tokens: Tensor) -> Tensor:
            nonlocal drawing
            started = time.perf_counter()
            images = decode_tokens(tokens)
            drawing += time.perf_counter() - started
            return images

        grid = bench.inputs(batch)[0].view(batch, bench.model.grid_size, -1)
        frames = bench.plain_frames(grid, labels, config, decode)
        for _ in frames:
            pass
        without_images["plain"].append(time.perf_counter() - begin - drawing)

    case = f"{steps} steps, {'guided' if guided else 'unguided'}, batch {batch}"
    row = compare(
        bench,
        "decode",
        case,
        ours,
        plain if bench.plain is not None else None,
        expected=(
            bench.run_seconds(config, batch, batch),
            bench.run_seconds(config, batch, batch * steps),
        ),
    )
    if row.value is None:
        return [row]
    counted = row.value.repeats
    tokens_only = spread(without_images["ours"][-counted:])
    other = spread(without_images["plain"][-counted:]) if row.plain is not None else None
    ratio = other.median / tokens_only.median if other is not None else None
    return [row, Row("decode", f"{case}: tokens only", "s", tokens_only, other, ratio)]


def live_jobs(bench: Bench) -> list[Job]:
    """What the page does: a picture of every step, of which few are decoded before the end."""
    model, guided = bench.model, bench.model.null_label is not None
    config = bench.config(LIVE_STEPS, guided=guided)
    case = f"{LIVE_STEPS} {'guided ' if guided else ''}steps, batch {LIVE_BATCH}, with live frames"
    labels = bench.labels(LIVE_BATCH)

    def run() -> LivePictures:
        pictures = LivePictures(model)
        for state in model.generate_steps(labels, config, seed=0):
            pictures.of(state.tokens)
        return pictures

    @torch.inference_mode()
    def job() -> list[Row]:
        grid = bench.inputs(LIVE_BATCH)[0].view(LIVE_BATCH, model.grid_size, -1)
        plain = None
        if bench.plain is not None:
            plain = lambda: list(bench.plain_frames(grid, labels, config))  # noqa: E731
        expected = bench.run_seconds(config, LIVE_BATCH, LIVE_BATCH)
        with_all = bench.run_seconds(config, LIVE_BATCH, LIVE_BATCH * LIVE_STEPS)
        times = {"expected": (expected, with_all)}
        row = compare(bench, "live", case, run, plain, **times)
        if row.value is None:
            return [row]
        pictures = run()
        after = [seconds(lambda: list(pictures.fill(math.inf)))]
        return [row, Row("live", "the skipped frames, after the end", "s", spread(after))]

    return [(f"live: {case}", job)]


def first_jobs(bench: Bench) -> list[Job]:
    """Time from the call to the first step, and to its image."""
    config = bench.config(LIVE_STEPS, guided=bench.model.null_label is not None)

    @torch.inference_mode()
    def job(batch: int) -> list[Row]:
        labels = bench.labels(batch)
        grid = bench.inputs(batch)[0].view(batch, bench.model.grid_size, -1)

        def first_step() -> Tensor:
            return next(bench.model.generate_steps(labels, config, seed=0)).tokens

        def first_frame() -> Tensor:
            return bench.model.preview(first_step())

        plain = None
        if bench.plain is not None:
            plain = lambda: next(bench.plain_frames(grid, labels, config))  # noqa: E731
        scale = {"unit": "ms", "scale": 1e3}
        return [
            compare(bench, "first", f"first step, batch {batch}", first_step, None, **scale),
            compare(bench, "first", f"first frame, batch {batch}", first_frame, plain, **scale),
        ]

    return [(f"first: batch {batch}", lambda b=batch: job(b)) for batch in bench.batches]


def inpaint_jobs(bench: Bench) -> list[Job]:
    """A photo of the model's size with a square hole of a quarter of its area."""
    model = bench.model
    config = bench.config(LIVE_STEPS, guided=model.null_label is not None)
    case = f"25 % hole, {LIVE_STEPS} steps, batch 1"

    @torch.inference_mode()
    def job() -> list[Row]:
        photo, hole = photo_of(bench), hole_of(bench)

        def plain() -> Image.Image:
            plan = model.plan_inpaint(photo, hole)
            known = model.tokenizer.encode_to_tokens(plan.blanked)
            tokens = known.masked_fill(plan.token_mask, model.mask_token_id)
            return finish_edit(plan, list(bench.plain_frames(tokens, [0], config))[-1])

        return [
            compare(
                bench,
                "inpaint",
                case,
                lambda: model.inpaint(photo, hole, 0, config, seed=0),
                plain if bench.plain is not None else None,
                expected=(
                    bench.run_seconds(config, 1, 2),
                    bench.run_seconds(config, 1, LIVE_STEPS),
                ),
            )
        ]

    return [(f"inpaint: {case}", job)]


def photo_of(bench: Bench) -> Image.Image:
    """Return a photo of the model's size."""
    pixels = ((bench.images(1)[0] + 1) * 127.5).byte().permute(1, 2, 0).contiguous()
    return Image.fromarray(pixels.numpy())


def hole_of(bench: Bench) -> np.ndarray:
    """Return bool (H, W), True in a square of a quarter of the area."""
    side = bench.model.image_size
    hole = np.zeros((side, side), dtype=bool)
    hole[side // 4 : side // 4 + side // 2, side // 4 : side // 4 + side // 2] = True
    return hole
