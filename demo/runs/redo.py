"""Decide some cells of a finished run again while all others stay: the tokens, touched by hand."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from demo.runs import frames, render
from demo.serving.one_thread import in_one_thread
from demo.serving.request import Request
from demo.settings import MAX_SEED, RequestError, build_config


def parse_redo(
    model: Any, run: dict[str, Any] | None, selection: Any, keep: bool, values: Mapping[str, Any]
) -> Request:
    """Check a request to decide cells again.

    Args:
        model: a `MaskGIT`.
        run: the run on the page.
        selection: what the page sent: {run, cells}.
        keep: the marked cells stay and all others of the images in which something is marked are
            decided again; otherwise it is the marked cells themselves.
        values: sampling settings as shown.

    Raises:
        RequestError: one sentence that says what to do.
    """
    if not run or not run.get("frames"):
        raise RequestError("Generate something first; then its cells can be decided again.")
    if run["model"] != model.name:
        raise RequestError(
            f"These images were made with {str(run['model'])[:60]}. Generate new ones first, or "
            "choose that model in the model menu."
        )
    sent = selection if isinstance(selection, dict) else {}
    tokens = frames.tokens_after(run)
    cells = sent.get("cells") if sent.get("run") == run["run"] else None
    if not isinstance(cells, list) or not cells:
        raise RequestError("Turn on Select cells and mark some cells in the images first.")
    if not all(type(cell) is int and 0 <= cell < tokens.size for cell in cells):
        raise RequestError("Some of the marked cells are not in these images. Mark them again.")
    marked = np.zeros(tokens.shape, dtype=bool)
    marked.reshape(-1)[cells] = True
    again = marked
    if keep:
        touched = marked.any(axis=(1, 2), keepdims=True)
        again = ~marked & touched
    if not again.any():
        raise RequestError("All cells are marked to stay, so there is nothing to decide again.")
    grids = torch.from_numpy(np.where(again, run["mask_id"], tokens))
    # A fresh seed: the old one would draw the old cells again.
    seed = secrets.randbelow(MAX_SEED - len(grids))
    before = render.to_uint8(frames.as_array(in_one_thread(model.decode_partial, grids)))
    sheet = render.contact_sheet(render.hide_cells(before, again), run["sheet_columns"])
    return Request(
        kind="redo",
        model=str(model.name),
        mask_token_id=int(run["mask_id"]),
        tokens_per_cell=int(model.tokens_per_cell),
        tokens=grids,
        labels=tuple(run["labels"]),
        seeds=tuple(seed + i for i in range(len(grids))),
        configs=(build_config(values),),
        captions=tuple(run["captions"]),
        start=render.data_url(sheet),
    )
