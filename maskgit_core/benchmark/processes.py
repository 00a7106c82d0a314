"""The parts of `benchmark` that need a process of their own: import, memory, the page.

Memory is the largest resident size that the system ever saw of a fresh process, libraries
included (VmHWM of Linux; ru_maxrss elsewhere, which on Linux would count the parent's too).
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskgit_core.benchmark.models import is_random
from maskgit_core.benchmark.setup import Bench, Job
from maskgit_core.benchmark.timing import Row, Spread, spread
from maskgit_core.weights.checkpoint import save_checkpoint

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 300.0
RUN_TIMEOUT = 600.0
APP_STARTS = 3
APP_IMAGES = 4
APP_STEPS = 12
IMPORTS = {
    "import maskgit_core": "import maskgit_core",
    "with torch and the networks": "from maskgit_core import MaskGIT",
}
# What a process does whose memory is measured; `b` is a Bench.
PROBES: dict[str, Callable[[Bench], Any]] = {
    "load": lambda b: None,
    "encode, batch 16": lambda b: b.model.encode(b.images(16)),
    "decode, batch 16": lambda b: b.model.decode(b.finished(16)),
    "4 images, 12 guided steps": lambda b: _generate(b, 4, 12),
    "4 images, 32 guided steps": lambda b: _generate(b, 4, 32),
    "16 images, 12 guided steps": lambda b: _generate(b, 16, 12),
    "inpaint": lambda b: _inpaint(b),
    "train tokenizer": lambda b: _train(b, "tokenizer"),
    "train transformer": lambda b: _train(b, "transformer"),
}


def import_jobs(bench: Bench) -> list[Job]:
    """Seconds of an import in a fresh interpreter."""

    def job(case: str) -> list[Row]:
        code = "import time; begin = time.perf_counter(); {}; print(time.perf_counter() - begin)"
        values = [float(_python(code.format(IMPORTS[case]))) for _ in range(bench.repeats)]
        return [Row("import", case, "s", spread(values))]

    return [(f"import: {case}", lambda c=case: job(c)) for case in IMPORTS]


def memory_jobs(bench: Bench) -> list[Job]:
    """Peak memory of a fresh process that does one thing."""

    def job(case: str) -> list[Row]:
        steps = 32 if "32" in case else 12
        images = int(case.split()[0]) if "images" in case else 16 if "batch 16" in case else 1
        config = bench.config(steps, guided=bench.model.null_label is not None)
        expected = bench.run_seconds(config, images, images)
        if expected > 3 * bench.limit:
            note = f"left out: about {expected:.0f} s"
            return [Row("memory", case, "MB", None, note=note)]
        code = (
            "from maskgit_core.benchmark.processes import probe; "
            f"print(probe({bench.name!r}, {case!r}))"
        )
        peak = float(_python(code))
        if peak < 0:
            return [Row("memory", case, "MB", None, note="published network, not trained here")]
        return [Row("memory", case, "MB", Spread(peak, peak, peak, 1))]

    return [(f"memory: {case}", lambda c=case: job(c)) for case in PROBES]


def probe(name: str, case: str) -> float:
    """Load a model, do one thing, and return this process's peak memory in MB (-1: cannot)."""
    from maskgit_core.benchmark.models import load_model

    bench = Bench(load_model(name), name)
    if PROBES[case](bench) is False:
        return -1.0
    return peak_megabytes()


def peak_megabytes(pid: int | str = "self") -> float:
    """Return the largest resident size that a process had, in MB of 10^6 bytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        if pid != "self":
            return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def app_jobs(bench: Bench) -> list[Job]:
    """The page: start to first answer, a run through its interface, memory."""
    app = Path(bench.app) if bench.app else None

    def job() -> list[Row]:
        if app is None or not app.is_file():
            return [Row("app", "start", "s", None, note=f"there is no {bench.app or 'app'}")]
        with checkpoint_folder(bench) as folder:
            if folder is None:
                return [Row("app", "start", "s", None, note="these shapes cannot be saved")]
            return measure_app(app, folder, bench)

    return [("app: start, 4 images in 12 steps", job)]


@contextmanager
def checkpoint_folder(bench: Bench) -> Iterator[str | None]:
    """Yield the name of a checkpoint with the model; random weights are saved for the while."""
    if not is_random(bench.name):
        yield bench.name
        return
    model = bench.model
    with tempfile.TemporaryDirectory() as folder:
        try:
            save_checkpoint(
                folder,
                tokenizer=model.tokenizer,
                transformer=model.transformer,
                classes=model.classes,
            )
        except ValueError:
            folder = ""
        yield folder or None


def measure_app(app: Path, checkpoint: str, bench: Bench) -> list[Row]:
    """Start the page some times; in the last process also run it."""
    checkpoint = str(Path(checkpoint).resolve()) if Path(checkpoint).exists() else checkpoint
    starts: list[float] = []
    number = min(bench.repeats, APP_STARTS)
    firsts: list[float] = []
    wholes: list[float] = []
    for _ in range(number):
        with running_app(app, checkpoint) as (address, process, taken):
            starts.append(taken)
            if len(starts) < number:
                continue
            # The first run also waits for what the page prepares when it starts.
            for _ in range(1 + bench.repeats):
                first, whole = run_through_page(address, bench.model.classes[:APP_IMAGES])
                firsts.append(first)
                wholes.append(whole)
            peak = peak_megabytes(process.pid)
    what = f"{APP_IMAGES} images, {APP_STEPS} guided steps, live"
    return [
        Row("app", "start to first HTTP 200", "s", spread(starts)),
        Row("app", f"{what}: first frame", "s", spread(firsts[1:])),
        Row("app", f"{what}: finished", "s", spread(wholes[1:])),
        Row("app", "peak memory while generating", "MB", Spread(peak, peak, peak, 1)),
    ]


@contextmanager
def running_app(app: Path, checkpoint: str) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Yield (address, process, seconds until it answered); the process ends afterwards.

    Raises:
        ValueError: it ended, or did not answer in time.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, app.name, "--checkpoint", checkpoint]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=app.resolve().parent, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while not _answers(address):
                if process.poll() is not None:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise ValueError(f"app must start; it ended: {' '.join(said)}")
                if time.perf_counter() - begin > START_TIMEOUT:
                    raise ValueError(f"app must answer within {START_TIMEOUT:.0f} s; it did not")
                time.sleep(0.02)
            yield address, process, time.perf_counter() - begin
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_through_page(address: str, classes: list[str]) -> tuple[float, float]:
    """Generate images through the page's interface; return seconds to first frame and to the end.

    Raises:
        ValueError: the page refused the request.
    """
    arguments = [classes, APP_IMAGES, 0, APP_STEPS, "confidence", "cosine", 3.0, "linear"]
    arguments += [1.0, 4.5, 0, 1.0]
    url = f"{address}/gradio_api/call/generate"
    begin = time.perf_counter()
    body = json.dumps({"data": arguments}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with _opener().open(request, timeout=RUN_TIMEOUT) as answer:
        event = json.load(answer)["event_id"]
    first = None
    with _opener().open(f"{url}/{event}", timeout=RUN_TIMEOUT) as stream:
        for line in stream:
            name = line.decode().strip()
            if name == "event: generating" and first is None:
                first = time.perf_counter() - begin
            if name == "event: error":
                raise ValueError("the page must take a request for images; it answered an error")
            if name == "event: complete":
                break
    whole = time.perf_counter() - begin
    return first if first is not None else whole, whole


def _opener() -> urllib.request.OpenerDirector:
    # A proxy of the environment would be asked for this machine's own address.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(address: str) -> bool:
    try:
        with _opener().open(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _python(code: str) -> str:
    """Return the last line that a fresh interpreter prints.

    Raises:
        ValueError: it failed; the last line of its error.
    """
    path = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if result.returncode:
        said = result.stderr.strip().splitlines()[-1:] or [f"exit status {result.returncode}"]
        raise ValueError(f"a process of the benchmark failed: {said[0]}")
    return result.stdout.strip().splitlines()[-1]


def _generate(bench: Bench, batch: int, steps: int) -> None:
    config = bench.config(steps, guided=bench.model.null_label is not None)
    bench.model.generate(bench.labels(batch), config, seed=0)


def _inpaint(bench: Bench) -> None:
    from maskgit_core.benchmark.parts import hole_of, photo_of

    config = bench.config(APP_STEPS, guided=bench.model.null_label is not None)
    bench.model.inpaint(photo_of(bench), hole_of(bench), 0, config, seed=0)


def _train(bench: Bench, name: str) -> bool:
    from maskgit_core.benchmark.training import step_seconds, tokenizer_stages, transformer_stages

    found = (tokenizer_stages if name == "tokenizer" else transformer_stages)(bench)
    if found is None:
        return False
    stages, config = found
    step_seconds(stages[0], config, 1)
    return True
