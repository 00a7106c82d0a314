"""Decoding steps as plain data for the player: what each step adds, and one small picture.

A run is a dict: a head that never changes, and what grows. It grows by events, one dict each:

- `{"waiting": n}`: its place in the queue before its first frame, 0 where it has none;
- `{"frame": ...}`: one more step, see `step_frame`;
- `{"pictures": {step: data URL}}`: better pictures of steps that are there already;
- `{"result": data URL, "seconds": s, "captions": [...]}`: the end.

The player gets the head and the events as lines of JSON, each once. Cells are numbered image by
image, row by row: cell = image * N + position.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from demo.runs import render
from demo.serving.request import Request
from maskgit_core.schedules import reveal_counts

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
    }


def request_head(request: Request) -> dict[str, Any]:
    """The head of the run of a request; see `run_head`."""
    unknown, total = (
        cells * request.tokens_per_cell
        for cells in (request.num_unknown, request.tokens[0].numel())
    )
    plans = [
        plan_shares(config.schedule, unknown, total, config.num_steps) for config in request.configs
    ]
    return run_head(
        run=new_run_name(),
        kind=request.kind,
        model_name=request.model,
        grid=(request.tokens.shape[1], request.tokens.shape[2]),
        captions=request.captions,
        plan=max(plans, key=len),
        mask_token_id=request.mask_token_id,
        base=request.base,
        known=known_cells(request),
        labels=request.labels,
        start=request.start,
        recipe=request.recipe,
    )


def known_cells(request: Request) -> np.ndarray | None:
    """The cells that stay, as `run_head` takes them; None where there is none."""
    grids = as_array(request.tokens)
    if (grids == request.mask_token_id).all():
        return None
    return grids[0] if (grids == grids[:1]).all() else grids


def plan_shares(schedule: str, unknown: int, total: int, num_steps: int) -> list[float]:
    """Share of all tokens still masked before the first step and after each step."""
    left = unknown
    shares = [left / total]
    for count in reveal_counts(schedule, unknown, num_steps):
        left -= count
        shares.append(left / total)
    return shares


def new_run_name() -> str:
    """A name that no other run has."""
    return secrets.token_hex(6)


def as_array(value: Any) -> np.ndarray:
    """A tensor or array as a numpy array on the CPU."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def new_run(head: dict[str, Any]) -> dict[str, Any]:
    """A run without a step."""
    return {**head, "waiting": 0, "frames": [], "result": None, "seconds": None}


def grown(run: dict[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """A run with one more event; the old one is left as it was."""
    if "frame" in event:
        return {**run, "waiting": 0, "frames": [*run["frames"], event["frame"]]}
    if "pictures" in event:
        steps = list(run["frames"])
        for step, picture in event["pictures"].items():
            steps[int(step)] = {**steps[int(step)], "src": picture}
        return {**run, "frames": steps}
    return {**run, **event}


def log_line(data: Mapping[str, Any]) -> str:
    """A head or an event as a line for the player."""
    return json.dumps(data, separators=(",", ":")) + "\n"


def _per_mille(probability: float) -> int:
    return round(1000 * min(max(float(probability), 0.0), 1.0))


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


def late_pictures(run: dict[str, Any], images: Mapping[int, np.ndarray]) -> dict[str, Any]:
    """The event of other pictures for some steps, by number: float32 (B, 3, H, W) in [-1, 1]."""
    pictures = {
        str(step): step_picture(picture, masked_after(run, step + 1))
        for step, picture in images.items()
    }
    return {"pictures": pictures}


def result_event(images: np.ndarray, seconds: float) -> dict[str, Any]:
    """The event of a result.

    Args:
        images: uint8 (B, H, W, 3), the finished images.
        seconds: how long the run took.
    """
    sheet = render.contact_sheet(images, sheet_columns(len(images)))
    return {"result": render.data_url(sheet, quality=92), "seconds": round(seconds, 2)}


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
