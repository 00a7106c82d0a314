"""What Gradio 6.31 keeps of a call when it is over, and how it is made to forget.

A call by a program is a session of its own. Gradio keeps the last hundreds of sessions, each with
the layout of the page, the photo that was sent and the images that were returned; and at the end of
each call it lays out a table of the last ten thousand for a page of numbers that is switched off.
"""

from __future__ import annotations

import asyncio
from copy import copy
from typing import Any

from gradio import queueing, route_utils, state_holder

LOOK_SECONDS = 10.0
LOOKS = 60  # an answer that nobody has fetched after so many is dropped


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


def make_forgetful() -> None:
    """Put the replacements in place; doing it again changes nothing."""
    state_holder.SessionState = route_utils.SessionState = LightSession
    queueing.Queue.process_events = process_and_forget
    queueing.Queue.compute_analytics_summary = no_summary
