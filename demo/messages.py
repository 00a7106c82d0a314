"""Turn what went wrong into one sentence on the page, without touching what is already there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from .settings import RequestError

log = logging.getLogger(__name__)


@contextmanager
def explain(title: str = "Not yet") -> Iterator[None]:
    """Show a RequestError as a notice, anything else as a plain error; both end the block.

    A notice, because an error from an event would be drawn over the picture that is shown.
    """
    try:
        yield
    except RequestError as error:
        gr.Warning(str(error), title=title, duration=8)
    except Exception:
        log.exception("a run failed")
        gr.Warning(
            "Something went wrong while the model was working. Nothing you set is lost; try again.",
            title="Run failed",
            duration=8,
        )
