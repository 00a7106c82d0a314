"""The part of `benchmark` that compares number types: how much sooner, and how many tokens stay."""

from __future__ import annotations

from collections.abc import Callable

import torch

from maskgit_core.benchmark.setup import Bench, Job
from maskgit_core.benchmark.timing import Row, Spread, in_turn, spread
from maskgit_core.devices.precision import bfloat16_pays, int8_works
from maskgit_core.pipeline import MaskGIT
from maskgit_core.weights.checkpoint import Checkpoint

STEPS = 12
BATCH = 1


def precision_jobs(bench: Bench) -> list[Job]:
    """One pass, and finding the tokens of one image, in each precision beside float32."""
    model = bench.model
    if model.precision != "float32" or model.device.type != "cpu":
        return []
    able = {"bfloat16": bfloat16_pays("cpu"), "int8": int8_works()}
    return [
        (f"precision: {name}", lambda name=name: _rounded(bench, name))
        for name, can in able.items()
        if can
    ]


@torch.inference_mode()
def _rounded(bench: Bench, precision: str) -> list[Row]:
    model = bench.model
    checkpoint = Checkpoint(model.tokenizer, model.transformer, model.classes, model.sampling)
    rounded = MaskGIT(checkpoint, precision=precision)
    config = bench.config(STEPS, guided=model.null_label is not None)
    tokens, labels = bench.inputs(BATCH)

    def decode(runner: MaskGIT) -> torch.Tensor:
        *_, state = runner.generate_steps(bench.labels(BATCH), config, seed=0)
        return state.tokens

    same = 100 * float((decode(rounded) == decode(model)).float().mean())
    passes = [lambda m=m: m.fast_transformer()(tokens, labels) for m in (rounded, model)]
    decodes = [lambda m=m: decode(m) for m in (rounded, model)]
    return [
        _beside(bench, f"{precision}: forward, batch {BATCH}", "ms", 1e3, passes),
        _beside(bench, f"{precision}: {STEPS} steps, tokens only", "s", 1.0, decodes),
        Row("precision", f"{precision}: tokens as in float32", "%", Spread(same, same, same, 1)),
    ]


def _beside(
    bench: Bench, case: str, unit: str, scale: float, calls: list[Callable[[], object]]
) -> Row:
    fast, slow = map(spread, in_turn(calls, bench.repeats, bench.limit))
    note = f"{slow.median / fast.median:.2f} times as fast as float32"
    return Row("precision", case, unit, fast.times(scale), note=note)
