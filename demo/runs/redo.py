"""Decide some cells of a finished run again while all others stay: the tokens, touched by hand."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from demo.runs import frames, generate, render
from demo.serving.decoding import Decode, DecodeRequest, decode_alone
from demo.serving.one_thread import in_one_thread
from demo.settings import MAX_SEED, RequestError, build_config
from maskgit_core.config import SamplingConfig


@dataclass(frozen=True)
class RedoRequest:
    """A checked request to decide cells again.

    Args:
        run: the run that is changed.
        tokens: int64 (B, h, w), the mask id where a cell is decided again.
        seed: image i uses seed + i.
        config: how to decode.
    """

    run: dict[str, Any]
    tokens: np.ndarray
    seed: int
    config: SamplingConfig


def parse_redo(
    run: dict[str, Any] | None, selection: Any, keep: bool, values: Mapping[str, Any]
) -> RedoRequest:
    """Check a request to decide cells again.

    Args:
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
    masked = np.where(again, run["mask_id"], tokens)
    # A fresh seed: the old one would draw the old cells again.
    seed = secrets.randbelow(MAX_SEED - len(tokens))
    return RedoRequest(run, masked, seed, build_config(values))


def redo_run(
    model: Any, request: RedoRequest, decode: Decode | None = None
) -> Iterator[tuple[dict[str, Any], list[Image.Image]]]:
    """Decide the cells again; arguments and yields as `generate.generate_run`.

    Raises:
        RequestError: another model made the images, or the run exceeded the time limit.
    """
    decode = decode or decode_alone(model)
    old = request.run
    if old["model"] != generate.model_name(model):
        raise RequestError(
            f"These images were made with {str(old['model'])[:60]}. Generate new ones first, or "
            "choose that model in the model menu."
        )
    unknown = request.tokens == old["mask_id"]
    most = int(unknown.sum(axis=(1, 2)).max())
    tokens = torch.from_numpy(request.tokens)
    before = render.to_uint8(generate.as_array(in_one_thread(model.decode_partial, tokens)))
    sheet = render.contact_sheet(render.hide_cells(before, unknown), old["sheet_columns"])
    run = frames.run_head(
        run=generate.new_run_name(),
        kind="redo",
        model_name=generate.model_name(model),
        grid=request.tokens.shape[1:],
        captions=old["captions"],
        plan=generate.plan_shares(
            request.config.schedule, most, unknown[0].size, request.config.num_steps
        ),
        mask_token_id=old["mask_id"],
        known=request.tokens,
        labels=old["labels"],
        start=render.data_url(sheet),
    )
    work = DecodeRequest("redo", tokens, tuple(old["labels"]), request.config, request.seed)
    del model  # a run that waits must not keep it in memory
    yield from generate.follow_steps(run, decode(work))
