"""Work of the model beside the queue: in one thread, whoever asks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tiny
from browser_model import tiny_model
from demo.runs.edit import edit_request, repaint
from demo.runs.follow import follow
from demo.runs.generate import parse_generate
from demo.runs.tour import tour_pictures
from demo.serving.local import LocalRunner
from demo.serving.models import ModelHolder
from demo.serving.one_thread import in_one_thread

VALUES = {"num_steps": 3, "guidance_scale": 3.0}


def test_calls_of_all_threads_run_in_one_other_thread_one_at_a_time():
    running = threading.Lock()

    def call(number: int) -> tuple[int, int]:
        assert running.acquire(blocking=False)
        time.sleep(0.001)
        running.release()
        return number, threading.get_ident()

    with ThreadPoolExecutor(8) as visitors:
        found = list(visitors.map(lambda number: in_one_thread(call, number), range(64)))
    assert [number for number, _ in found] == list(range(64))
    assert len({thread for _, thread in found} - {threading.get_ident()}) == 1


def test_what_a_call_raises_is_raised_and_the_next_one_runs():
    with pytest.raises(ZeroDivisionError):
        in_one_thread(lambda: 1 / 0)
    assert in_one_thread(divmod, 7, 2) == (3, 1)


def test_photos_are_encoded_there_and_final_images_decoded(monkeypatch):
    model, threads = tiny_model(), set()
    there = in_one_thread(threading.get_ident)
    for name in ("encode", "decode"):
        whole = getattr(model, name)

        def noted(images, whole=whole, name=name):
            threads.add((name, threading.get_ident()))
            return whole(images)

        monkeypatch.setattr(model, name, noted)
    mask = np.zeros((48, 64), dtype=bool)
    mask[10:30, 10:30] = True
    photo = tiny.picture(1, (64, 48))
    change = edit_request(model, repaint(model, photo, mask), "rose", 1, 7, VALUES, 50)
    tour_pictures(model, photo)
    runner = LocalRunner(ModelHolder(model))
    for request in (parse_generate(model, ["sea"], 1, 1, VALUES), change):
        *_, last = follow(request, runner.decode)
        assert len(last.images) == 1
    assert threads == {("encode", there), ("decode", there)}


FORKED = """
import os, sys, threading
from demo.serving.one_thread import in_one_thread
before = in_one_thread(threading.get_ident)
child = os.fork()
if not child:
    os._exit(0 if in_one_thread(os.getpid) == os.getpid() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no fork, or none that is safe")
def test_a_forked_process_has_a_thread_of_its_own():
    # As on ZeroGPU, where a run is computed in a fork of the page.
    assert subprocess.run([sys.executable, "-c", FORKED], timeout=60, check=False).returncode == 0
