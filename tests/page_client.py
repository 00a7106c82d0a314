"""A running page as a stranger meets it: raw requests, and what an answer may say."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

import tiny
from demo.settings import FIELDS
from odd_images import SIDE, noise, saved

SECONDS = 60  # past it, a request counts as hanging
OWN_SETTINGS = (None,) * (len(FIELDS) - 1)  # of decoding, other than the steps: the model's own


class Site:
    """A running page, and what a stranger can send to it."""

    def __init__(self, url: str, demo: Any, folder: Path) -> None:
        self.demo = demo
        self.folder = folder
        self.web = httpx.Client(base_url=url, timeout=SECONDS)

    def upload(self, content: bytes, name: str = "photo.png") -> str:
        answer = self.web.post("/gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def real(self, path: str) -> Path:
        """The file behind what a visitor was told."""
        assert path.startswith("/files/"), path
        return self.folder / path.removeprefix("/files/")

    def call(self, name: str, data: list[Any]) -> tuple[str, Any]:
        """Last event of a function for programs, and what it holds."""
        body = json.dumps({"data": data}).encode()
        headers = {"Content-Type": "application/json"}
        answer = self.web.post(f"/gradio_api/call/{name}", content=body, headers=headers)
        if answer.status_code != 200:
            return "refused", told(answer)
        return self.follow(f"/gradio_api/call/{name}/{answer.json()['event_id']}")

    def inpaint(self, image: Any, **sent: Any) -> tuple[str, Any]:
        return self.call("inpaint", [image, sent.get("mask", MASK), *INPAINT[2:]])

    def follow(self, address: str) -> tuple[str, Any]:
        found = re.findall(r"event: (\w+)\ndata: (.*)\n", self.web.get(address).text)
        assert found, address
        event, text = found[-1]
        return event, json.loads(text)

    def press(self, function: str, data: list[Any], session: str = "s") -> dict[str, Any]:
        """Run one of the page's own events by the name of its handler; its last message."""
        (number,) = [i for i, fn in self.demo.fns.items() if fn.name == function][:1]
        body = {"data": data, "fn_index": number, "session_hash": session}
        answer = self.web.post("/gradio_api/queue/join", json=body)
        assert answer.status_code == 200, answer.text
        stream = self.web.get("/gradio_api/queue/data", params={"session_hash": session}).text
        messages = [json.loads(text) for text in re.findall(r"^data: (.*)$", stream, re.MULTILINE)]
        done = [m for m in messages if m["msg"] == "process_completed"][-1]
        return done | {"said": [m["log"] for m in messages if m["msg"] == "log"]}


def told(answer: httpx.Response) -> str:
    """What an answer that is no success says; it is never a trace or a place on the disk."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    check_words(answer.text)
    return answer.text


def check_words(text: str) -> None:
    assert text.strip()
    for word in ("Traceback", "site-packages", ".py", str(Path.home() / "x")[:-1], os.getcwd()):
        assert word not in text, text[:300]


def check_answer(event: str, data: Any) -> None:
    """A result, or one sentence."""
    if event == "error":
        assert isinstance(data, dict) and isinstance(data["error"], str), data
        check_words(data["error"])
        assert len(data["error"]) < 600
    else:
        assert event in ("complete", "refused"), event


@contextmanager
def served_site(folder: Path) -> Iterator[Site]:
    """The page on a tiny model, which keeps its files in a folder."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    from demo.launch import launch_options, queue_options
    from demo.ui import build_demo

    demo = build_demo(tiny.model())
    demo.queue(**queue_options())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield Site(url, demo, folder)
    demo.close()
    del os.environ["GRADIO_TEMP_DIR"]
    if before is not None:
        os.environ["GRADIO_TEMP_DIR"] = before


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def corner() -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (0, 0, 5, 5))
    return mask


PHOTO = saved(noise(1), "PNG")
MASK = as_text(saved(corner(), "PNG"))
# Valid values for every argument.
SETTINGS = [1, "confidence", "cosine", 3.0, "linear", 1.0, 4.5, 0, 1.0]
GENERATE = [["sea"], 1, 0, *SETTINGS]
INPAINT = [as_text(PHOTO), MASK, "sea", 1, 0, *SETTINGS, None]
OUTPAINT = [as_text(PHOTO), 0.5, 0, 0, 0, "sea", 1, 0, *SETTINGS]
VALID = {
    "generate": GENERATE,
    "inpaint": INPAINT,
    "outpaint": OUTPAINT,
    "classes": [],
    "models": [],
}
FILE = {"meta": {"_type": "gradio.FileData"}, "orig_name": "photo.png"}


def events(url: str, name: str, arguments: list[Any]) -> Iterator[tuple[str, Any]]:
    """Call a function for programs; yield name and data of each event of its answer.

    To close the generator is to close the connection, as a visitor does who leaves.
    """
    address = f"{url.rstrip('/')}/gradio_api/call/{name}"
    body = json.dumps({"data": arguments}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        event_id = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{address}/{event_id}", timeout=SECONDS) as stream:
        event = ""
        for line in stream:
            key, _, value = line.decode("utf-8").strip().partition(": ")
            if key == "event":
                event = value
            elif key == "data" and event != "heartbeat":
                yield event, json.loads(value)


def visit(url: str, visitors: int, *, asks: int, steps: int, leave: int) -> Counter[str]:
    """Let many visitors ask at once, some times each; the first `leave` leave at their first event.

    Returns:
        How many answers were `done`, `left`, `refused` (too many were waiting), or `failed`.
    """

    def one(visitor: int) -> str:
        try:
            with closing(
                events(url, "generate", [["sea"], 1, visitor, steps, *OWN_SETTINGS])
            ) as found:
                for event, data in found:
                    if event == "error":
                        return "refused" if "waiting already" in str(data) else "failed"
                    if visitor < leave and not data[0]["done"]:
                        return "left"
                return "done" if data[0]["done"] and data[0]["images"] else "failed"
        except urllib.error.HTTPError as error:
            return "refused" if error.code == 503 else "failed"

    with ThreadPoolExecutor(visitors) as pool:
        return Counter(pool.map(one, [*range(visitors)] * asks))
