"""The served page under fire: many at once, leavers, a killed process, and what the owner sees."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import signal
import socket
import string
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

import waiting
from browser_model import tiny_model
from demo.runs.follow import follow
from demo.runs.generate import parse_generate
from demo.serving import zero_gpu
from demo.serving.health import health_routes
from demo.serving.local import LocalRunner
from demo.serving.models import ModelHolder
from demo.serving.runner import make_runner
from demo.serving.steps import decode_alone
from page_client import OWN_SETTINGS, events, visit

ROOT = Path(__file__).parent.parent
TABLE = ("first step", "finished", "left", "refused")
wait_for = partial(waiting.wait_for, seconds=240.0)


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask(url: str, count: int, steps: int) -> Iterator:
    arguments = [["sea"], count, 0, steps, *OWN_SETTINGS]
    return events(url, "generate", arguments)


def heard(web: httpx.Client, address: str, session: str) -> str:
    """What a stream tells until it ends, or is cut: Gradio cuts it where there is nothing."""
    text = ""
    with (
        suppress(httpx.RemoteProtocolError),
        web.stream("GET", address, params={"session_hash": session}) as answer,
    ):
        for piece in answer.iter_text():
            text += piece
    return text


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, LocalRunner, ModelHolder]]:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo.launch import launch_options, queue_options
    from demo.ui import build_demo

    models = ModelHolder(tiny_model(pause=0.03))
    runner = LocalRunner(models, max_waiting=3)
    demo = build_demo(models, runner=runner)
    demo.queue(**queue_options())
    options = launch_options(routes=health_routes(models, runner, metrics=True))
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **options)
    yield url.rstrip("/"), runner, models
    demo.close()


def test_health_tells_whether_a_model_is_loaded(served) -> None:
    url, _, models = served
    status, text = get(url + "/healthz")
    assert status == 200
    assert json.loads(text) == {"status": "ok", "model": "model", "waiting": 0, "working": 0}
    model, models._model = models._model, None
    try:
        assert get(url + "/healthz")[0] == 503
    finally:
        models._model = model


def test_a_client_that_leaves_frees_its_place_and_is_counted(served) -> None:
    url, runner, models = served
    models.current.pause = 0.2
    events = ask(url, 1, 64)
    while not next(events)[1][0]["step"]:
        pass
    assert runner.num_working == 1
    events.close()
    wait_for(lambda: runner.num_working == 0)
    models.current.pause = 0.03
    *_, (name, (last,)) = ask(url, 2, 2)
    assert name == "complete" and last["done"] and len(last["images"]) == 2
    _, text = get(url + "/metrics")
    assert 'maskgit_jobs_total{kind="generate",outcome="left"} 1.0\n' in text
    assert 'maskgit_jobs_total{kind="generate",outcome="done"} 1.0\n' in text
    assert "maskgit_jobs_working 0.0\n" in text


def test_more_clients_than_places_meet_no_error_but_the_refusal(served) -> None:
    url, runner, models = served
    models.current.pause = 0.1
    refused_before = runner.metrics.jobs("generate", "refused")
    met = visit(url, 8, asks=2, steps=4, leave=2)
    models.current.pause = 0.03
    assert not met["failed"] and met["done"] and met["refused"] and met.total() == 16
    assert runner.metrics.jobs("generate", "refused") - refused_before <= met["refused"]
    wait_for(lambda: runner.num_working == runner.num_waiting == 0)


def test_the_load_test_counts_what_visitors_meet(served) -> None:
    url, _, _ = served

    def counted() -> dict[str, int]:
        found = re.findall(r'outcome="(\w+)"} (\d+)', get(url + "/metrics")[1])
        outcomes = ("done", "left", "refused")
        return {o: sum(int(count) for name, count in found if name == o) for o in outcomes}

    before = counted()
    command = [sys.executable, "-m", "demo.tools.loadtest", "--host", url, "--json"]
    command += "--users 6 --spawn-rate 6 --run-time 3s --steps 2 --leave 0.4".split()
    command += ["--pid", str(os.getpid())]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr
    table = {row["name"]: row for row in json.loads(ended.stdout[ended.stdout.index("[") :])}
    counts = {name: table.get(name, {"num_requests": 0})["num_requests"] for name in TABLE}
    happened = {name: count - before[name] for name, count in counted().items()}
    assert "failed" not in table and counts["refused"] == happened["refused"]
    # Who leaves may do so after the server has finished.
    assert 0 < counts["finished"] <= happened["done"] <= counts["finished"] + counts["left"]
    assert counts["left"] >= happened["left"]
    assert table["finished"]["max_response_time"] >= table["first step"]["min_response_time"] > 0
    assert re.search(r"megabytes: \d+ first, \d+ last", ended.stdout + ended.stderr)


def test_nobody_follows_or_stops_the_run_of_another(served) -> None:
    url, runner, models = served
    web = httpx.Client(base_url=f"{url}/gradio_api", timeout=60)
    config = httpx.get(f"{url}/config", timeout=60).json()
    (number,) = [fn["id"] for fn in config["dependencies"] if fn["api_name"] == "generate"]
    mine = "".join(random.choices(string.ascii_lowercase + string.digits, k=11))
    body = {"data": [["sea"], 1, 5, 64, *OWN_SETTINGS], "session_hash": mine}
    models.current.pause = 0.3
    name = web.post("/call/generate", json=body).json()["event_id"]
    # The server names a run by chance, so that nobody finds one by trying.
    assert re.fullmatch("[0-9a-f]{32}", name)
    wait_for(lambda: runner.num_working == 1)
    for other in ("", "null", "*", mine[:-1], mine.upper(), name):
        tried = {"session_hash": other, "fn_index": number, "event_id": uuid.uuid4().hex}
        web.post("/cancel", json=tried)
        web.post("/reset", json=tried)
        for address in ("/queue/data", f"/call/generate/{tried['event_id']}"):
            text = heard(web, address, other)
            assert "num_steps" not in text and "data:image" not in text
    assert runner.num_working == 1
    models.current.pause = 0.0
    text = web.get(f"/call/generate/{name}").text
    event, data = re.findall(r"event: (\w+)\ndata: (.*)\n", text)[-1]
    assert event == "complete" and len(json.loads(data)[0]["images"]) == 1
    models.current.pause = 0.03


def test_visitors_are_told_apart_by_the_address_that_they_call_from(served, monkeypatch) -> None:
    url, runner, _ = served
    taken, join = [], runner.queue.join
    monkeypatch.setattr(
        runner.queue, "join", lambda *job, **more: taken.append(join(*job, **more)) or taken[-1]
    )
    body = {"data": [["sea"], 1, 5, 2, *OWN_SETTINGS]}
    calls = [("127.0.0.2", {}), ("127.0.0.3", {}), ("127.0.0.2", {"X-Forwarded-For": "9.9.9.9"})]
    for address, headers in calls:
        from_there = httpx.HTTPTransport(local_address=address)
        with httpx.Client(
            base_url=f"{url}/gradio_api", timeout=60, transport=from_there, headers=headers
        ) as web:
            name = web.post("/call/generate", json=body).json()["event_id"]
            assert "event: complete" in web.get(f"/call/generate/{name}").text
    one, other, forged = (job.visitor for job in taken)
    assert one == forged != other and "" not in (one, other)


def test_no_counters_unless_asked_for() -> None:
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    models = ModelHolder(tiny_model())
    client = TestClient(Starlette(routes=health_routes(models, LocalRunner(models))))
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").status_code == 404


def test_a_server_that_was_killed_in_mid_job_serves_again(tiny_checkpoint: Path, tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--checkpoint", str(tiny_checkpoint)]
    command += ["--port", str(port)]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert server.poll() is None, server.stderr.read()
        try:
            return get(url + "/healthz")[0] == 200
        except OSError:
            return False

    for kill in (True, False):
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        ) as server:
            try:
                wait_for(up)
                events = ask(url, 16, 64 if kill else 2)
                assert next(events)[1][0]["done"] is False
                if kill:
                    server.send_signal(signal.SIGKILL)
                    continue
                *_, (_, (last,)) = events
                assert last["done"]
                assert get(url + "/metrics")[0] == 404
                server.terminate()
                lines = [json.loads(line) for line in server.stderr if line.startswith("{")]
                generated = [line["outcome"] for line in lines if line["kind"] == "generate"]
                assert generated == ["done"]
            finally:
                server.kill()


# ---- ZeroGPU -------------------------------------------------------------------------------------


def test_without_the_package_nothing_is_decorated(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    assert zero_gpu.gpu(len) is len and not zero_gpu.on_zero_gpu()
    assert isinstance(make_runner(ModelHolder(tiny_model())), LocalRunner)


class Platform:
    """Stands in for the package: what goes to the other process and back is pickled."""

    def __init__(self) -> None:
        self.durations: list[int] = []
        self.asked: list[bytes] = []
        self.answered: list[bytes] = []

    def GPU(self, duration: int):
        def around(function):
            def run(*arguments):
                self.durations.append(duration)
                self.asked.append(pickle.dumps(arguments))
                for item in function(*pickle.loads(self.asked[-1])):
                    self.answered.append(pickle.dumps(item))
                    yield pickle.loads(self.answered[-1])

            return run

        return around


@pytest.fixture
def platform(monkeypatch) -> Platform:
    stand_in = Platform()
    monkeypatch.setitem(sys.modules, "spaces", stand_in)
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    return stand_in


def lent(model) -> tuple[ModelHolder, list[str]]:
    """A holder whose model notes where it is moved."""
    moved: list[str] = []
    model.to = lambda device: (moved.append(device), model)[1]
    return ModelHolder(model), moved


def test_with_the_package_every_run_is_one_decorated_call(monkeypatch, platform) -> None:
    models, moved = lent(tiny_model())
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert isinstance(make_runner(models), LocalRunner)
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    runner = make_runner(models)
    assert runner.concurrency == 1
    request = parse_generate(models.current, ["sea"], 1, 3, {"num_steps": 3})
    *_, last = follow(request, runner.decode)
    assert moved == ["cuda"] and len(last.images) == 1
    *_, alone = follow(request, decode_alone(models.current))
    assert last.run["result"] == alone.run["result"]
    assert platform.durations == [zero_gpu.GPU_SECONDS]


def test_a_step_is_sent_from_the_other_process_once(platform) -> None:
    """The bytes grow with the number of steps, not with its square."""
    sizes = []
    for steps in (8, 32):
        models, _ = lent(tiny_model(grid_size=6))
        request = parse_generate(models.current, ["sea"], 16, 1, {"num_steps": steps})
        platform.answered.clear()
        list(follow(request, make_runner(models).decode))
        sizes.append(sum(map(len, platform.answered)))
    assert sizes[1] < 4.4 * sizes[0]
