"""Decoding steps as plain data for the player: what each step adds, and one small picture.

A run is a dict that only grows: a head that never changes, and `frames`. Before its first frame
`waiting` tells its place in line, 0 where it has none. Cells are numbered
image by image, row by row: cell = image * N + position.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from demo.runs import render

NUM_ALTERNATIVES = 5


def sheet_columns(count: int) -> int:
    """Images in one row of a step's picture (and on the page)."""
    return {1: 1, 2: 2, 3: 3, 4: 2, 5: 3, 6: 3, 7: 3, 8: 4, 9: 3}.get(count, 4)


def run_head(
    *,
    run: str,
    kind: str,
    model_name: str,
    grid: tuple[int, int],
    captions: Sequence[str],
    plan: Sequence[float],
    mask_token_id: int,
    base: str | None = None,
    known: np.ndarray | None = None,
    labels: Sequence[int | None] = (),
    start: str | None = None,
    recipe: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The part of a run that is known before the first step.

    Args:
        run: a name that no other run of the page has.
        kind: `generate` or `edit`.
        model_name: which codebook the token ids belong to.
        grid: cells (h, w).
        captions: one line under each image.
        plan: share still masked before the first step and after each step.
        mask_token_id: K.
        base: data URL of the photo under an edit.
        known: int64 (h, w), the same for all images, or (B, h, w): codes that stay, the mask id
            where the run decides.
        labels: class index of each image, None where left open.
        start: data URL of the images before the first step, on one sheet.
        recipe: settings that reproduce the run.
    """
    return {
        "run": run,
        "kind": kind,
        "model": model_name,
        "rows": grid[0],
        "columns": grid[1],
        "count": len(captions),
        "sheet_columns": sheet_columns(len(captions)),
        "captions": list(captions),
        "plan": [round(float(share), 4) for share in plan],
        "num_steps": len(plan) - 1,
        "mask_id": int(mask_token_id),
        "base": base,
        "start": start,
        "labels": list(labels),
        "known": None if known is None else [int(code) for code in known.ravel()],
        "recipe": recipe,
        "waiting": 0,
        "frames": [],
        "result": None,
        "seconds": None,
    }


def _per_mille(probability: float) -> int:
    return int(round(1000 * min(max(float(probability), 0.0), 1.0)))


def step_frame(
    tokens: np.ndarray,
    newly_revealed: np.ndarray,
    confidence: np.ndarray,
    images: np.ndarray,
    mask_token_id: int,
    alternatives: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """What one step adds.

    Args:
        tokens: int64 (B, h, w), the mask id where still masked.
        newly_revealed: bool (B, h, w).
        confidence: float32 (B, h, w), log-probability; nan where there is none.
        images: float32 (B, 3, H, W) in [-1, 1], the partial decode.
        mask_token_id: K.
        alternatives: ids int64 and probabilities float32, both (B, h, w, A), best first.
    """
    cells = np.flatnonzero(newly_revealed.ravel())
    logs = confidence.ravel()[cells]
    ids, probabilities = alternatives
    best = ids.reshape(-1, ids.shape[-1])[cells, :NUM_ALTERNATIVES]
    share = probabilities.reshape(-1, ids.shape[-1])[cells, :NUM_ALTERNATIVES]
    return {
        "src": step_picture(images, tokens == mask_token_id),
        "cells": cells.tolist(),
        "ids": tokens.ravel()[cells].tolist(),
        "sure": [_per_mille(math.exp(v)) if math.isfinite(v) else -1 for v in logs],
        "per_cell": int(best.shape[1]),
        "alternatives": best.ravel().tolist(),
        "shares": [_per_mille(value) for value in share.ravel()],
    }


def step_picture(images: np.ndarray, masked: np.ndarray) -> str:
    """One step's images, float32 (B, 3, H, W) in [-1, 1], as a sheet without the masked cells."""
    shown = render.hide_cells(render.to_uint8(images), masked)
    return render.data_url(render.contact_sheet(shown, sheet_columns(len(shown))))


def add_frame(run: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any]:
    """A new run with one more frame; the old one is left as it was."""
    return {**run, "frames": [*run["frames"], frame]}


def with_pictures(run: dict[str, Any], images: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """A new run with other pictures for some steps, by number: float32 (B, 3, H, W) in [-1, 1]."""
    steps = list(run["frames"])
    for step, picture in images.items():
        masked = masked_after(run, step + 1)
        steps[step] = {**steps[step], "src": step_picture(picture, masked)}
    return {**run, "frames": steps}


def finish(run: dict[str, Any], images: np.ndarray, seconds: float) -> dict[str, Any]:
    """A new run that also holds its result.

    Args:
        run: a run with all its frames.
        images: uint8 (B, H, W, 3), the finished images.
        seconds: how long the run took.
    """
    sheet = render.contact_sheet(images, run["sheet_columns"])
    return {**run, "result": render.data_url(sheet, quality=92), "seconds": round(seconds, 2)}


def masked_after(run: dict[str, Any], step: int) -> np.ndarray:
    """Cells still masked after `step` frames (0 = before the first): bool (B, h, w)."""
    return tokens_after(run, step) == run["mask_id"]


def tokens_after(run: dict[str, Any], step: int | None = None) -> np.ndarray:
    """Codes after `step` frames (None = all of them): int64 (B, h, w), the mask id where masked."""
    shape = (run["count"], run["rows"], run["columns"])
    tokens = np.full(shape, run["mask_id"], dtype=np.int64)
    if run["known"] is not None:
        tokens[:] = np.array(run["known"]).reshape(-1, *shape[1:])
    flat = tokens.reshape(-1)
    for frame in run["frames"][:step]:
        flat[frame["cells"]] = frame["ids"]
    return tokens


def codebook_payload(model_name: str, patches: np.ndarray) -> dict[str, Any]:
    """Colours and decoded patches of all codes, sent to the page once.

    Args:
        model_name: as in `run_head`.
        patches: uint8 (K, p, p, 3).
    """
    side = min(8, patches.shape[1]) if len(patches) <= 4096 else 4
    atlas = render.patch_atlas(patches, side)
    colours = render.token_colours(patches).tobytes()
    return {
        "model": model_name,
        "size": len(patches),
        "side": side,
        "columns": atlas.width // side,
        "atlas": render.data_url(atlas, quality=85),
        "colours": base64.b64encode(colours).decode("ascii"),
    }


def preview_url(image: Image.Image, side: int = 384) -> str:
    """A photo as a small data URL, longest side at most `side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return render.data_url(small, quality=85)
