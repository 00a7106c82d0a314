"""Habits of Gradio 6.31 that no setting changes, and what replaces them here.

Each is one function or class of the pinned version; the tests of the running page fail if a new
version no longer uses it. A patch stays only as long as something is lost without it. Measured on a
tiny model, each patch taken out alone:

| replaced | lost without it |
| --- | --- |
| `processing_utils.async_ssrf_protected_download` | the server asks for each address that a client names instead of a file (4 of 4 ways to name one), and takes in files of any size |
| `route_utils.GradioUploadFile` | two visitors who send the same photo get one file: who opens it first takes it from the other |
| `queueing.error_payload` | an unfit request is answered with `{"error": null}`; a foreign choice of 5,000 characters comes back in full |
| `utils.error_payload` | the same for what does not queue |
| `state_holder.SessionState` | 490 KiB are kept of a session in place of 21, for up to 128 sessions |
| `Queue.process_events` | 4 KiB are kept of a call for ever in place of 0.5, and the photo and images of the last 128 calls |
| `Queue.compute_analytics_summary` | 50 ms of work at the end of each event, once 10,000 are over |

A call by a program is a session of its own. Gradio keeps the last ones, each with the layout of the
page, what was sent and what was returned; and at the end of each call it lays out a table of the
last ten thousand for a page of numbers that is switched off.
"""  # noqa: E501

from __future__ import annotations

import asyncio
import secrets
from copy import copy
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils, queueing, route_utils, state_holder, utils
from gradio.exceptions import InvalidPathError

NOT_FETCHED = "Addresses are not fetched here: send the file itself."
NOT_UPLOADED = "That is not an uploaded file."
NOT_DONE = (
    "This request could not be carried out. Check what was sent, or load the page anew, and try "
    "again."
)
LONGEST_ERROR = 500  # characters
LOOK_SECONDS = 10.0
LOOKS = 60  # an answer that nobody has fetched after so many is dropped


async def refuse_download(*_: Any, **__: Any) -> NoReturn:
    """Take the place of Gradio's downloader, which fetches any public address that a client names.

    Raises:
        gr.Error: always.
    """
    raise gr.Error(NOT_FETCHED, print_exception=False)


class UnguessableUpload(route_utils.GradioUploadFile):
    """An upload whose folder's name tells nothing about its content and is never used twice.

    Gradio names it after the content, so that two visitors with the same photo share one file.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sha.update(secrets.token_bytes(32))


def plain_payload(error: BaseException | None, show_error: bool) -> dict[str, Any]:
    """Say in one sentence what a client learns of an error: never a path or a trace."""
    if not isinstance(error, gr.Error):
        known = isinstance(error, InvalidPathError)
        error = gr.Error(NOT_UPLOADED if known else NOT_DONE)
    return {
        # Gradio repeats a value that is not among the choices, however long it was sent.
        "error": str(error.message)[:LONGEST_ERROR],
        "duration": error.duration,
        "visible": error.visible,
        "title": error.title,
    }


class LightSession(state_holder.SessionState):
    """A session without the layout and the last values of all widgets.

    They serve links to another visitor's session only, which the gate does not let through.
    """

    def __init__(self, blocks: Any) -> None:
        self.blocks_config = copy(blocks.default_config)
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 3600

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


def forget(queue: Any, event: Any, looks: int) -> None:
    """Drop what is left of a call by a program, once its answer was fetched or its client left.

    Args:
        queue: Gradio's.
        event: of it; over.
        looks: how often to look again for the answer to be fetched.
    """
    session = event.session_hash
    if session != event._id:
        return  # of a page, or of a client that calls again
    holder = queue.server_app.state_holder
    holder.session_data.pop(session, None)
    holder.time_last_used.pop(session, None)
    # Gradio takes a name out when it has sent the last message.
    if event.alive and looks and event._id in queue.pending_event_ids_session.get(session, ()):
        loop = asyncio.get_running_loop()
        loop.call_later(LOOK_SECONDS, forget, queue, event, looks - 1)
        return
    queue.pending_event_ids_session.pop(session, None)
    queue.pending_messages_per_session.pop(session, None)


_process_events = queueing.Queue.process_events


async def process_and_forget(self: Any, events: list[Any], *arguments: Any) -> None:
    """Take the place of `Queue.process_events`."""
    try:
        await _process_events(self, events, *arguments)
    finally:
        for event in events:
            forget(self, event, LOOKS)


def no_summary(self: Any, records: list[Any]) -> dict[str, Any]:
    """Take the place of `Queue.compute_analytics_summary`."""
    return self.cached_event_analytics_summary


PATCHES: tuple[tuple[Any, str, Any], ...] = (
    (processing_utils, "async_ssrf_protected_download", refuse_download),
    (route_utils, "GradioUploadFile", UnguessableUpload),
    (queueing, "error_payload", plain_payload),
    (utils, "error_payload", plain_payload),
    (state_holder, "SessionState", LightSession),
    (queueing.Queue, "process_events", process_and_forget),
    (queueing.Queue, "compute_analytics_summary", no_summary),
)


def patch_gradio() -> None:
    """Put the replacements in place; doing it again changes nothing."""
    for owner, name, replacement in PATCHES:
        assert hasattr(owner, name), f"Gradio has no {name} any more"
        setattr(owner, name, replacement)
