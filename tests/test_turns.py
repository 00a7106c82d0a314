"""Turns before the model's queue: no visitor can shut others out of Gradio's."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from gradio import queueing, state_holder
from starlette.datastructures import Address, Headers

from demo.hardening import turns
from demo.hardening.visitors import visitor_key


class Function:
    """What Gradio's queue asks of an event's function."""

    concurrency_id, concurrency_limit, api_name, connection = "f", None, "f", "sse"
    validator = time_limit = fn = None
    batch = False


FN = Function()


def request(host: str, size: int = 10) -> Any:
    headers = Headers({"content-length": str(size)})
    return SimpleNamespace(client=Address(host, 1), headers=headers)


class Page:
    """Gradio's own queue, without a server in front of it or threads behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        turns.take_turns()
        blocks = SimpleNamespace(fns={0: FN}, _queue=None)
        self.queue = queueing.Queue(False, 80, 1.0, None, blocks, None)
        self.queue.active_jobs = [None] * 80
        monkeypatch.setattr(queueing.route_utils, "get_fn", lambda *_: FN)
        self._number = 0

    def push(self, host: str, size: int = 10, session: str | None = None) -> tuple[bool, Any, str]:
        self._number += 1
        body = SimpleNamespace(fn_index=0, session_hash=session or f"s{self._number}")
        return asyncio.run(self.queue.push(body, request(host, size), None))

    def waiting(self) -> Counter[str]:
        return Counter(event.visitor for event in turns._waiting(self.queue))

    def serve(self) -> str:
        found = self.queue.get_events()
        assert found is not None
        self.queue.active_jobs[self.queue.active_jobs.index(None)] = found[0]
        return found[0][0].visitor

    def end(self, visitor: str) -> None:
        jobs = self.queue.active_jobs
        jobs[next(i for i, job in enumerate(jobs) if job and job[0].visitor == visitor)] = None


@pytest.fixture
def page(monkeypatch) -> Page:
    return Page(monkeypatch)


def key(host: str) -> str:
    return visitor_key(request(host))


def test_a_full_queue_has_room_for_who_has_less_in_it(page) -> None:
    taken = [page.push("10.0.0.1")[0] for _ in range(turns.MAX_EVENTS + 5)]
    assert taken == [True] * turns.MAX_EVENTS + [False] * 5
    for host in range(2, 12):
        for _ in range(3):
            done, _, _ = page.push(f"10.0.0.{host}")
            assert done
    waiting = page.waiting()
    assert waiting.total() == turns.MAX_EVENTS
    assert all(waiting[key(f"10.0.0.{host}")] == 3 for host in range(2, 12))
    done, sentence, state = page.push("10.0.0.1")
    assert (done, state) == (False, "queue_full") and "minute" in sentence


def test_who_is_pushed_out_is_told(page) -> None:
    for _ in range(turns.MAX_EVENTS):
        page.push("10.0.0.1", session="theirs")
    page.push("10.0.0.2")
    messages = page.queue.pending_messages_per_session["theirs"]
    told = [messages.get_nowait() for _ in range(messages.qsize())]
    (last,) = [m for m in told if m.msg == "process_completed"]
    assert not last.success and last.output["error"] == turns.PUSHED_OUT


def test_visitors_are_served_in_turn_and_a_newcomer_at_once(page) -> None:
    for _ in range(100):
        page.push("10.0.0.1")
    served = [page.serve() for _ in range(64)]
    assert set(served) == {key("10.0.0.1")}
    assert page.queue.get_events() is None  # the rest of the threads is kept for others
    page.push("10.0.0.2")
    assert page.serve() == key("10.0.0.2")
    for _ in range(20):
        page.push("10.0.0.3")
        page.end(key("10.0.0.1"))
    assert Counter(page.serve() for _ in range(15)) == {key("10.0.0.3"): 15}


def test_large_bodies_of_one_visitor_are_bounded(page) -> None:
    large = turns.MAX_EVENT_BYTES_OF_ONE // 2
    assert [page.push("10.0.0.1", large)[0] for _ in range(4)] == [True, True, False, False]
    assert page.push("10.0.0.2", large)[0]
    assert page.push("10.0.0.1", 10)[0] is False


def test_sessions_of_who_has_most_are_forgotten_first(page) -> None:
    class Session:
        def __init__(self, blocks: Any) -> None:
            pass

    states = state_holder.StateHolder()
    states.blocks, states.capacity = SimpleNamespace(_queue=page.queue), 8
    page.queue.server_app = SimpleNamespace(state_holder=states)
    patch = pytest.MonkeyPatch()
    patch.setattr(state_holder, "SessionState", Session)
    page.push("10.0.0.1", session="mine")
    states["mine"]
    for number in range(40):
        page.push("10.0.0.2", session=f"flood{number}")
        states[f"flood{number}"]
    assert "mine" in states and len(states.session_data) == 8
    assert "flood39" in states
    patch.undo()


def test_messages_that_nobody_fetches_are_bounded(page, monkeypatch) -> None:
    monkeypatch.setattr(turns, "MAX_SESSIONS_OF_ONE", 5)
    page.push("10.0.0.2", session="mine")
    for number in range(30):
        done, event, _ = page.push("10.0.0.1", session=f"flood{number}")
        assert done
        found = page.queue.get_events()
        assert found is not None
        page.queue.event_ids_to_events.pop(event, None)
    assert len(page.queue.pending_messages_per_session) <= 8
    assert "mine" in page.queue.pending_messages_per_session
