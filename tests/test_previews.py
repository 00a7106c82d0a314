"""Pictures of a run in progress: few are decoded before the end, all of them show the tokens."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import tiny
from demo.runs import frames, generate, render
from demo.runs.follow import follow
from demo.serving.steps import decode_alone
from maskgit_core import SamplingConfig
from maskgit_core.decoding.previews import LivePictures
from maskgit_core.devices.precision import bfloat16_pays

K = tiny.TRANSFORMER.codebook_size
STEPS = 6


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Slow:
    """A model whose decoding takes a second of a clock; counts what is decoded."""

    def __init__(self, model, clock):
        self.model, self.clock, self.previews, self.decodes = model, clock, 0, 0
        self.mask_token_id, self.codebook_patches = model.mask_token_id, model.codebook_patches

    def preview(self, tokens):
        self.previews += 1
        self.clock.now += 1.0
        return self.model.preview(tokens)

    def decode(self, tokens):
        self.decodes += 1
        self.clock.now += 1.0
        return self.model.decode(tokens)


def grids(model):
    config = SamplingConfig(num_steps=STEPS)
    return [state.tokens for state in model.generate_steps([0, 1], config, seed=0)]


def test_pictures_keep_to_their_share_of_the_time(tiny_model):
    clock = Clock()
    slow = Slow(tiny_model, clock)
    pictures = LivePictures(slow, share=0.25, clock=clock)
    shown = []
    for tokens in grids(tiny_model):
        before = slow.previews
        pictures.of(tokens)
        shown.append(slow.previews > before)
        clock.now += 2.0  # a second of pictures is due after three of other work
    assert shown == [True, False, True, False, True, False] and slow.decodes == 1
    assert sorted(pictures.skipped) == [1, 3]


def test_the_last_picture_is_the_exact_image(tiny_model):
    pictures = LivePictures(tiny_model, share=1e-9)
    for tokens in grids(tiny_model):
        pictures.of(tokens)
    assert torch.equal(pictures.images, tiny_model.decode(tokens))


def test_skipped_steps_show_their_codes_where_something_is_new(tiny_model):
    pictures = LivePictures(tiny_model, share=1e-9)
    first, second = grids(tiny_model)[:2]
    decoded = pictures.of(first).clone()
    images = pictures.of(second)
    new = second != first
    pixels = new.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].expand_as(images)
    assert new.any() and torch.equal(images[~pixels], decoded[~pixels])
    image, row, column = new.nonzero()[0].tolist()
    cell = images[image, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    patch = tiny_model.codebook_patches()[int(second[image, row, column])]
    assert np.array_equal(render.to_uint8(cell[None].numpy())[0], patch)


def test_skipped_steps_are_decoded_afterwards(tiny_model):
    pictures = LivePictures(tiny_model, share=1e-9)
    tokens = grids(tiny_model)
    for grid in tokens:
        pictures.of(grid)
    assert list(pictures.skipped) == [1, 2, 3, 4]
    late = {number: images for some in pictures.fill(60.0) for number, images in some.items()}
    assert sorted(late) == [1, 2, 3, 4] and not pictures.skipped
    for step, images in late.items():
        expected = tiny_model.preview(tokens[step])
        assert (images - expected).abs().max() < 0.02


def test_filling_in_stops_in_time(tiny_model):
    clock = Clock()
    pictures = LivePictures(Slow(tiny_model, clock), share=1e-9, clock=clock)
    for tokens in grids(tiny_model):
        pictures.of(tokens)
    assert list(pictures.fill(0.0)) == [] and len(pictures.skipped) == 4


def test_a_preview_is_the_partial_decode_but_for_rounding(tiny_model):
    tokens = grids(tiny_model)[2]
    preview = tiny_model.preview(tokens)
    assert preview.dtype == torch.float32
    assert (preview - tiny_model.decode_partial(tokens)).abs().max() < 0.05
    if not bfloat16_pays("cpu"):
        assert torch.equal(preview, tiny_model.decode_partial(tokens))


def test_a_run_ends_with_a_decoded_picture_of_every_step(tiny_model, monkeypatch):
    monkeypatch.setattr("demo.serving.steps.LivePictures", partial(LivePictures, share=1e-9))
    monkeypatch.setattr(render, "data_url", partial(render.data_url, lossless=True))
    values = {"num_steps": STEPS}
    request = generate.parse_generate(tiny_model, ["sea"], 2, 3, values)
    seen = list(follow(request, decode_alone(tiny_model)))
    shown, run = next(progress.run for progress in seen if progress.images), seen[-1].run
    assert shown["result"] == run["result"] and len(seen[-1].images) == 2
    sources = [frame["src"] for frame in run["frames"]]
    before = [frame["src"] for frame in shown["frames"]]
    assert [a != b for a, b in zip(sources, before, strict=True)] == [False] + [True] * 4 + [False]
    (config,) = request.configs
    for step, state in enumerate(tiny_model.generate_steps([1, 1], config, seed=3)):
        masked = (state.tokens == K).numpy()
        url = frames.step_picture(tiny_model.preview(state.tokens).numpy(), masked)
        one, other = (np.asarray(render.open_data_url(u), int) for u in (sources[step], url))
        assert np.abs(one - other).max() < 8  # two roundings to bfloat16


@pytest.mark.parametrize("step", [0, 2])
def test_new_pictures_replace_old_ones_and_leave_the_rest(step):
    head = frames.run_head(
        run="a",
        kind="generate",
        model_name="m",
        grid=(2, 2),
        captions=["one"],
        plan=[1, 0.75, 0.5, 0],
        mask_token_id=9,
    )
    run = frames.new_run(head)
    for cell in ([0], [1], [2, 3]):
        frame = {"src": "old", "cells": cell, "ids": [1] * len(cell), "sure": [0] * len(cell)}
        run = frames.grown(run, {"frame": frame})
    late = {step: np.zeros((1, 3, 8, 8), dtype=np.float32)}
    new = frames.grown(run, frames.late_pictures(run, late))
    assert [f["src"] == "old" for f in new["frames"]] == [number != step for number in range(3)]
    assert [f["src"] for f in run["frames"]] == ["old"] * 3
    pixels = np.asarray(render.open_data_url(new["frames"][step]["src"]))
    holes = np.abs(pixels[::4, ::4].reshape(4, 3).astype(int) - render.HOLE).max(1) < 8
    assert holes.tolist() == [cell > step and step < 2 for cell in range(4)]
