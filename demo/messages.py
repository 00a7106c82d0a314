"""Turn what went wrong into one sentence on the page, without touching what is already there."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from demo.settings import RequestError

log = logging.getLogger(__name__)


@contextmanager
def explain(context: str = "") -> Iterator[None]:
    """Show a RequestError as a notice, anything else as a plain sentence; both end the block.

    A notice, because an error from an event would be drawn over the picture that is shown.

    Args:
        context: a sentence to begin with, such as what could not be done.
    """
    try:
        yield
    except RequestError as error:
        # Notices are shown as HTML, and the sentence may quote what a stranger wrote.
        gr.Warning(html.escape(f"{context} {error}".strip(), quote=False), duration=8)
    except Exception:
        log.exception("a run failed")
        gr.Warning(
            "Something went wrong while the model was working. Nothing you set is lost; try again.",
            duration=8,
        )


def notice(sentence: str) -> None:
    """Tell something that is no problem."""
    gr.Info(html.escape(sentence, quote=False), duration=8)
