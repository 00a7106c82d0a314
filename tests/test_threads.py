"""Computations at once, each on one thread, that leave the threads of all others as they were."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch

from maskgit_core.devices.threads import side_by_side


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_calls():
    assert side_by_side([partial(pow, number, 2) for number in range(9)]) == [
        number**2 for number in range(9)
    ]


def test_two_run_at_once_on_a_thread_each_without_gradients():
    both = threading.Barrier(2, timeout=20)

    def call() -> tuple[int, bool]:
        both.wait()
        return torch.get_num_threads(), torch.is_grad_enabled()

    assert side_by_side([call, call]) == [(1, False), (1, False)]


def test_one_alone_has_this_thread_and_all_of_torchs():
    def call() -> tuple[int, int, bool]:
        return threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()

    assert side_by_side([call]) == [(threading.get_ident(), 2, False)]


def test_other_threads_keep_their_number():
    side_by_side([torch.get_num_threads] * 2)
    found = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert torch.get_num_threads() == 2 and found == [2]


def test_what_a_call_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        side_by_side([partial(pow, 1, 1), partial(pow, 0, -1)])
