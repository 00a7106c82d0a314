"""Fairness before the model's queue: Gradio's events, sessions and messages, by visitor.

Gradio 6.31 takes events from anybody until its queue is full and serves them in the order of their
arrival; sessions are forgotten oldest first, whosever they are. Here a full queue makes room for
who has less in it, and each serves its visitors in turn.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from gradio import queueing, state_holder
from gradio.server_messages import ProcessCompletedMessage

from demo.hardening.visitors import visitor_key

log = logging.getLogger(__name__)

MAX_EVENTS = 128  # of all visitors, waiting for a thread
FREE_THREADS = 16  # of Gradio's, kept for visitors who have few events under way
FEW_EVENTS = 8
MAX_EVENT_BYTES = 400 * 1024**2  # of all bodies that wait or are worked on
MAX_EVENT_BYTES_OF_ONE = 120 * 1024**2
MAX_SESSIONS_OF_ONE = 256  # with messages that nobody has fetched

FULL = "Many others are here just now. Try again in a minute."
PUSHED_OUT = "You sent more than can be kept while others wait. Try again in a minute."

_push = queueing.Queue.push


def _owner(event: Any) -> str:
    return getattr(event, "visitor", "")


def _waiting(queue: Any) -> list[Any]:
    return [event for each in queue.event_queue_per_concurrency_id.values() for event in each.queue]


def _active(queue: Any) -> list[Any]:
    return [event for job in queue.active_jobs if job for event in job]


def _size(event: Any) -> int:
    return getattr(event, "body_bytes", 0)


def _body_bytes(request: Any) -> int:
    text = request.headers.get("content-length", "") if request is not None else ""
    return int(text) if text.isdigit() else 0


async def push_in_turn(self: Any, body: Any, request: Any, username: str | None) -> Any:
    """Take the place of `Queue.push`: no visitor can shut another out."""
    visitor, size = visitor_key(request), _body_bytes(request)
    waiting, active = _waiting(self), _active(self)
    sizes: Counter[str] = Counter()
    for event in (*waiting, *active):
        sizes[_owner(event)] += _size(event)
    too_large = sizes[visitor] + size > MAX_EVENT_BYTES_OF_ONE and sizes[visitor] > 0
    if too_large or sizes.total() + size > MAX_EVENT_BYTES:
        return False, FULL, "queue_full"
    if len(waiting) >= MAX_EVENTS:
        counts = Counter(map(_owner, waiting))
        busiest, most = counts.most_common(1)[0]
        if counts[visitor] + 1 >= most:
            return False, FULL, "queue_full"
        _push_out(self, next(e for e in reversed(waiting) if _owner(e) == busiest))
    _forget_unfetched(self, visitor)
    result = await _push(self, body, request, username)
    event = self.event_ids_to_events.get(result[1]) if result[0] else None
    if event is not None:
        event.visitor, event.body_bytes = visitor, size
    _sessions(self)[body.session_hash] = visitor
    return result


def _push_out(queue: Any, event: Any) -> None:
    queue.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
    output = {"error": PUSHED_OUT, "duration": 10, "visible": True, "title": "Error"}
    queue.send_message(event, ProcessCompletedMessage(output=output, success=False))
    queue.event_ids_to_events.pop(event._id, None)


def _sessions(queue: Any) -> dict[str, str]:
    """Whose a session is, of those that Gradio still keeps something of."""
    if not hasattr(queue, "visitors_of_sessions"):
        queue.visitors_of_sessions = {}
    known = queue.visitors_of_sessions
    if len(known) > 4096:
        kept = queue.pending_messages_per_session
        states = queue.server_app.state_holder.session_data if queue.server_app else {}
        for session in [name for name in known if name not in kept and name not in states]:
            del known[session]
    return known


def _forget_unfetched(queue: Any, visitor: str) -> None:
    """Drop the oldest messages of a visitor with very many sessions, which nobody fetches."""
    known = _sessions(queue)
    mine = [name for name in queue.pending_messages_per_session if known.get(name, "") == visitor]
    for name in mine[: max(0, len(mine) - MAX_SESSIONS_OF_ONE)]:
        busy = queue.pending_event_ids_session.get(name, set()) & queue.event_ids_to_events.keys()
        if not busy:
            queue.pending_messages_per_session.pop(name, None)
            queue.pending_event_ids_session.pop(name, None)


def events_in_turn(self: Any) -> tuple[list[Any], bool, str] | None:
    """Take the place of `Queue.get_events`: who has the least under way is next."""
    active = Counter(map(_owner, _active(self)))
    waiting = [
        (event, each)
        for each in self.event_queue_per_concurrency_id.values()
        if each.concurrency_limit is None or each.current_concurrency < each.concurrency_limit
        for event in each.queue
    ]
    if not waiting:
        return None
    owners = active.keys() | {_owner(event) for event, _ in waiting}
    threads = len(self.active_jobs)
    share = max(FEW_EVENTS, (threads - FREE_THREADS) // len(owners))
    allowed = [pair for pair in waiting if active[_owner(pair[0])] < share]
    if not allowed:
        return None
    first, queue = min(allowed, key=lambda pair: (active[_owner(pair[0])], pair[0].enqueue_time))
    events = [first]
    if first.fn.batch:
        others = [event for event in queue.queue if event.fn == first.fn and event is not first]
        events += others[: first.fn.max_batch_size - 1]
    for event in events:
        queue.queue.remove(event)
    return events, first.fn.batch, queue.concurrency_id


def update_in_turn(self: Any, session_id: str) -> None:
    """Take the place of `StateHolder.update`: the oldest session of who has the most is dropped."""
    with self.lock:
        if session_id in self.session_data:
            self.session_data.move_to_end(session_id)
        while len(self.session_data) > self.capacity:
            known = _sessions(self.blocks._queue)
            counts = Counter(known.get(name, "") for name in self.session_data)
            busiest = counts.most_common(1)[0][0]
            oldest = next(n for n in self.session_data if known.get(n, "") == busiest)
            del self.session_data[oldest]
            self.time_last_used.pop(oldest, None)


def take_turns() -> None:
    """Put the replacements in place; doing it again changes nothing."""
    queueing.Queue.push = push_in_turn  # type: ignore[method-assign]
    queueing.Queue.get_events = events_in_turn  # type: ignore[method-assign]
    state_holder.StateHolder.update = update_in_turn  # type: ignore[method-assign]
