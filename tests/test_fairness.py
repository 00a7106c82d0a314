"""Visitors take turns in the queue, the places that they are shown tell the truth, and whose a job
is comes from the address that cannot be invented.
"""

from __future__ import annotations

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from demo.hardening import visitors as keys
from demo.serving import fairness, jobs
from demo.serving.jobs import Job
from demo.serving.local import LocalRunner
from demo.serving.request import Request
from maskgit_core.config import SamplingConfig

ONE_CONFIG = {
    name: SamplingConfig(num_steps=steps) for steps, name in enumerate(("x", "y", "same"), 1)
}


class Recorder(LocalRunner):
    """Serves a batch when it is told to, in this thread; notes the batches and the places shown."""

    def __init__(self, **options) -> None:
        super().__init__(types.SimpleNamespace(name="m"), max_waiting=1000, **options)
        self._thread = self  # so that none is started
        self.batches: list[list[Job]] = []
        self.shown: list[dict[Job, int]] = []

    def add(self, visitor: str, settings: str | None = None, images: int = 1) -> Job:
        if settings is None:
            return self._join(lambda: None, "tour", "m", visitor=visitor)
        numbers = tuple(range(images))
        request = Request(
            "generate", "m", 32, None, numbers, numbers, (ONE_CONFIG[settings],), ("",) * images
        )
        return self._join(request, "generate", "m", visitor=visitor)

    def serve(self) -> None:
        if self.queue.waiting:
            self._serve_one()

    def drain(self) -> list[Job]:
        """Serve all; returns them in the order of service."""
        begun = len(self.batches)
        while self.queue.waiting:
            self._serve_one()
        return [job for batch in self.batches[begun:] for job in batch]

    def places(self) -> dict[Job, int]:
        return {job: self.queue.place(job) for job in self.queue.waiting}

    def arrive(self) -> None:
        """What happens while a batch is computed."""

    def _compute(self, batch: list[Job]) -> None:
        self.batches.append(batch)
        self.arrive()
        self.shown.append(self.places())
        for job in batch:
            job.end(jobs.DONE)


def visitors(served: list[Job]) -> str:
    return "".join(job.visitor for job in served)


def test_a_late_single_job_overtakes_a_flood() -> None:
    runner = Recorder(batching=False)
    for _ in range(30):
        runner.add("a", "same")
    runner.arrive = lambda: runner.batches[1:] or runner.add("b", "same")  # during the first of a
    runner.serve()
    (late,) = [job for job in runner.queue.waiting if job.visitor == "b"]
    assert runner.shown[0][late] == runner.places()[late] == 1
    assert visitors(runner.drain()) == "b" + 29 * "a"


def test_who_comes_while_another_is_served_is_next_and_gets_no_second_turn_before_others() -> None:
    runner = Recorder(batching=False)
    for visitor in "aaaab":
        runner.add(visitor)
    comers = iter("cbd")
    runner.arrive = lambda: [runner.add(visitor) for visitor in [next(comers, None)] if visitor]
    # While the first of a is served c comes, behind b; while that of b is, he comes again.
    assert visitors(runner.drain()) == "abcabdaa"


def test_nobody_starves_behind_visitors_who_come_again_and_again() -> None:
    runner = Recorder(batching=False)
    for visitor in "aaab":
        runner.add(visitor)
    again = iter(20 * "cb")
    runner.arrive = lambda: [runner.add(visitor) for visitor in [next(again, None)] if visitor]
    served = visitors(runner.drain())
    assert served.startswith("abcabcabc")


def test_there_is_room_in_a_batch_for_one_job_of_each_before_a_second_of_anyone() -> None:
    runner = Recorder(max_batch_images=3)
    for visitor in "aaaabbc":
        runner.add(visitor, "same")
    runner.drain()
    assert [visitors(batch) for batch in runner.batches] == ["abc", "aba", "a"]


def test_who_leaves_goes_out_of_the_queue_and_nothing_is_kept_of_who_was_served() -> None:
    runner = Recorder(batching=False)
    first, second, other = runner.add("a"), runner.add("a"), runner.add("b")
    first.end(jobs.LEFT)
    assert runner.places() == {second: 1, other: 2}
    runner.drain()
    runner.batches, runner.shown = [], []
    assert runner.queue.waiting == runner.queue.working == []
    assert not any(
        isinstance(kept, str | list | dict) and kept for kept in vars(runner.queue).values()
    )


JOBS = st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "x", "y"]), st.integers(1, 4))
STEPS = st.lists(st.one_of(JOBS, st.just("serve")), max_size=24)


@given(STEPS, st.lists(JOBS, max_size=4), st.booleans(), st.integers(1, 6))
def test_the_places_shown_are_those_in_the_order_of_service(
    steps: list, comers: list, batching: bool, most: int
) -> None:
    runner = Recorder(batching=batching, max_batch_images=most)
    for step in steps:
        runner.serve() if step == "serve" else runner.add(*step)
    before, told = runner.places(), len(runner.batches)
    runner.arrive = lambda: [runner.add(*comers.pop()) for _ in list(comers)]  # in the next batch
    left = runner.drain()
    batches, shown = runner.batches[told:], runner.shown[told:]
    for place, job in enumerate(batches[0] if batches else [], 1):
        assert before[job] == place
    for batch, places in zip(batches, shown, strict=True):
        left = left[len(batch) :]
        assert places == {job: place for place, job in enumerate(left, 1)}


@given(STEPS)
def test_nobody_is_served_twice_while_another_waits(steps: list) -> None:
    runner = Recorder(batching=False)
    waiting: list[set[str]] = []
    runner.arrive = lambda: waiting.append({job.visitor for job in runner.queue.waiting})
    for step in steps:
        runner.serve() if step == "serve" else runner.add(*step)
    runner.drain()
    order = visitors([job for batch in runner.batches for job in batch])
    for turn, visitor in enumerate(order):
        following = order.find(visitor, turn + 1)
        if following > 0:
            between = set(order[turn + 1 : following])
            assert waiting[turn] - {visitor} <= between


@given(st.lists(JOBS, max_size=16), st.integers(1, 6))
def test_one_visitor_alone_is_served_in_the_order_of_arrival(wanted: list, most: int) -> None:
    runner = Recorder(max_batch_images=most)
    left = [runner.add("a", settings, images) for _, settings, images in wanted]
    expected = []
    while left:
        batch = [left.pop(0)]
        for job in list(left):
            images = sum(member.images for member in batch) + job.images
            key = batch[0].together
            if key is not None and job.together == key and images <= most:
                batch.append(job)
                left.remove(job)
        expected.append(batch)
    runner.drain()
    assert runner.batches == expected


# ---- whose a job is ------------------------------------------------------------------------------


def request(host: str | None, *forwarded: str, session: str = "s") -> types.SimpleNamespace:
    headers = Headers(raw=[(b"x-forwarded-for", text.encode()) for text in forwarded])
    client = types.SimpleNamespace(host=host) if host else None
    return types.SimpleNamespace(client=client, headers=headers, session_hash=session)


@pytest.fixture(autouse=True)
def at_home(monkeypatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)


def test_visitors_are_told_apart_by_their_addresses() -> None:
    one = fairness.visitor_key(request("203.0.113.5"))
    assert one == fairness.visitor_key(request("203.0.113.5", session="t"))
    assert one == fairness.visitor_key(request("::ffff:203.0.113.5"))
    assert one != fairness.visitor_key(request("203.0.113.6"))
    assert len(one) == 32 and int(one, 16) >= 0


def test_an_address_is_not_to_be_had_from_its_key(monkeypatch) -> None:
    before = fairness.visitor_key(request("203.0.113.5"))
    monkeypatch.setattr(keys, "_SECRET", b"of another process")
    assert before != fairness.visitor_key(request("203.0.113.5"))


def test_the_addresses_of_one_ipv6_network_are_one_visitor() -> None:
    one = fairness.visitor_key(request("2001:db8:1:2::1"))
    assert one == fairness.visitor_key(request("2001:db8:1:2:ffff:1:2:3"))
    assert one != fairness.visitor_key(request("2001:db8:1:3::1"))


def test_without_an_address_the_session_is_the_visitor() -> None:
    keys = {fairness.visitor_key(request(None, session=session)) for session in ("s", "t", "s")}
    assert len(keys) == 2
    assert fairness.visitor_key(request("s")) not in keys


def test_on_a_space_the_address_is_what_the_proxy_appended(monkeypatch) -> None:
    forged = [("1.1.1.1, 203.0.113.5",), ("2.2.2.2", "203.0.113.5"), ("203.0.113.5",)]
    elsewhere = {fairness.visitor_key(request("10.0.0.1", *lines)) for lines in forged}
    assert elsewhere == {fairness.visitor_key(request("10.0.0.1"))}
    direct = fairness.visitor_key(request("203.0.113.5"))
    monkeypatch.setenv("SPACE_ID", "me/page")
    assert {fairness.visitor_key(request("10.0.0.1", *lines)) for lines in forged} == {direct}
    assert fairness.visitor_key(request("10.0.0.1")) in elsewhere


def test_outside_of_an_event_everybody_is_the_same_visitor() -> None:
    assert fairness.current_visitor() == ""
