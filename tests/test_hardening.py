"""The running page against strangers: what they may reach, read, send, and what they are told."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio import route_utils
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from demo.edit_session import REPAINT
from odd_images import SIDE, noise, odd_images, saved
from test_odd_files import junk

FUNCTIONS = {"generate", "inpaint", "classes", "models"}
SECONDS = 60  # past it, a request counts as hanging


class Page:
    """A running page, and what a stranger can send to it."""

    def __init__(self, url: str, demo: Any, folder: Path) -> None:
        self.demo = demo
        self.folder = folder
        self.web = httpx.Client(base_url=url, timeout=SECONDS)

    def upload(self, content: bytes, name: str = "photo.png") -> str:
        answer = self.web.post("/gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

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


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("gradio")
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    from demo.launch import launch_options, queue_options
    from demo.ui import build_demo

    demo = build_demo(tiny.model())
    demo.queue(**queue_options())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield Page(url, demo, folder)
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
# Valid values for every argument: a call with fewer is refused before anything is looked at.
SETTINGS = [1, "confidence", "cosine", 3.0, "linear", 1.0, 4.5, 0, 1.0]
GENERATE = [["sea"], 1, 0, *SETTINGS]
INPAINT = [as_text(PHOTO), MASK, "sea", 1, 0, *SETTINGS]
VALID = {"generate": GENERATE, "inpaint": INPAINT, "classes": [], "models": []}
FILE = {"meta": {"_type": "gradio.FileData"}, "orig_name": "photo.png"}


# ---- addresses -----------------------------------------------------------------------------------


def test_every_answer_says_how_it_may_be_used(page) -> None:
    for address in ("/", "/config", "/gradio_api/info", "/nothing", "/gradio_api/file=/etc/passwd"):
        headers = page.web.get(address).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert (
            "frame-ancestors 'self' https://huggingface.co;" in headers["content-security-policy"]
        )
        assert "x-frame-options" not in headers  # it could not name who may


def test_addresses_that_the_page_has_no_use_for_are_closed(page) -> None:
    secret = page.demo.app.analytics_key if hasattr(page.demo.app, "analytics_key") else "x"
    for address in (
        "/docs",
        "/monitoring",
        f"/monitoring/{secret}",
        "/monitoring/summary",
        "/gradio_api/deep_link?session_hash=s",
        "/gradio_api/proxy=https://example.com/x",
        "/gradio_api/custom_component/a/client/component/index.js",
        "/gradio_api/run-history/buckets",
        "/gradio_api/runs",
        "/gradio_api/token",
        "/gradio_api/dev/reload",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/mcp/",
        "/gradio_api/vibe-code",
    ):
        assert page.web.get(address).status_code == 404, address
    for address in ("process_recording", "component_server", "vibe-edit", "stream/a"):
        assert page.web.post(f"/gradio_api/{address}", json={}).status_code == 404, address
    for address in ("/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/openapi.json"):
        assert page.web.get(address).status_code == 200, address


def test_only_documented_functions_answer_to_a_name(page) -> None:
    info = page.web.get("/gradio_api/info").json()
    assert {name.strip("/") for name in info["named_endpoints"]} == FUNCTIONS
    assert not info["unnamed_endpoints"]
    names = {fn.api_name for fn in page.demo.fns.values() if isinstance(fn.api_name, str)}
    assert names > FUNCTIONS
    for fn in page.demo.fns.values():
        assert fn.api_name in FUNCTIONS or fn.api_visibility == "private", fn.name
    for name in (names - FUNCTIONS) | {"load", "nonsense", "__proto__"}:
        for kind in ("call", "call/v2", "run", "api"):
            answer = page.web.post(f"/gradio_api/{kind}/{name}", json={"data": []})
            assert answer.status_code == 404, (kind, name)
    # What queues cannot be called past the queue.
    body = {"data": [["sea"]]}
    assert page.web.post("/gradio_api/run/generate", json=body).status_code == 404


def test_another_site_is_not_let_in(page) -> None:
    headers = {"Origin": "https://evil.example"}
    answer = page.web.get("/config", headers=headers)
    assert answer.headers.get("access-control-allow-origin") != "https://evil.example"


def test_bodies_are_bounded(page, monkeypatch) -> None:
    from demo import gate

    monkeypatch.setattr(gate, "MAX_JSON_BYTES", 2_000)
    monkeypatch.setattr(gate, "MAX_FILE_BYTES", 2_000)
    monkeypatch.setattr(gate, "FORM_BYTES", 0)
    text = json.dumps({"data": ["x" * 3_000]}).encode()
    headers = {"Content-Type": "application/json"}
    for content in (text, iter([text[:1_500], text[1_500:]])):
        address = "/gradio_api/call/generate"
        assert page.web.post(address, content=content, headers=headers).status_code == 413
    files = {"files": ("x.png", b"x" * 3_000)}
    assert page.web.post("/gradio_api/upload", files=files).status_code == 413


def test_an_upload_is_cut_at_its_limit(page) -> None:
    assert page.demo.max_file_size == 25 * 1024**2


# ---- nothing is fetched, nothing is read ---------------------------------------------------------


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """Addresses that Gradio would have fetched."""
    asked: list[str] = []

    async def record(address: str, *_: Any, **__: Any) -> None:
        asked.append(address)
        raise OSError

    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_get", record)
    monkeypatch.setattr("gradio.route_utils.safehttpx.async_validate_url", record)
    return asked


@pytest.mark.parametrize("address", ["https://example.com/a.png", "http://127.0.0.1:1/a.png"])
def test_addresses_from_clients_are_never_fetched(page, fetched, address: str) -> None:
    from demo.guards import NOT_FETCHED

    for file in ({"path": address} | FILE, {"path": address, "url": address} | FILE):
        event, data = page.inpaint(file)
        assert (event, data["error"]) == ("error", NOT_FETCHED)
        done = page.press("on_upload", [file])
        assert not done["success"] and done["output"]["error"] == NOT_FETCHED
    for file in ({"path": address}, {"url": address}, address, {"url": address} | FILE):
        event, data = page.inpaint(file)
        assert event == "error"
        check_answer(event, data)
    assert page.web.get(f"/gradio_api/file={address}").status_code == 404
    assert page.web.get(f"/gradio_api/proxy={address}").status_code == 404
    page.press("on_incoming", [{"incoming": address}])
    assert not fetched


def test_files_of_the_machine_are_never_opened(page) -> None:
    here = str(Path(__file__).resolve())
    example = str(Path(__file__).parents[1] / "demo" / "examples" / "sea.jpg")
    for path in ("/etc/passwd", here, example, f"{page.folder}/../x", "file:///etc/passwd"):
        for file in ({"path": path}, {"path": path} | FILE):
            event, data = page.inpaint(file)
            assert event == "error" and "not an uploaded file" in data["error"], data
            check_answer(event, data)
        done = page.press("on_upload", [{"path": path} | FILE])
        assert not done["success"] and "not an uploaded file" in done["output"]["error"]
        said = page.press("on_incoming", [{"incoming": path}])["said"]
        assert "not an uploaded file" in said[-1]
        assert page.web.get(f"/gradio_api/file={path}").status_code == 404
    assert Path(example).exists()


# ---- visitors among themselves -------------------------------------------------------------------


def test_no_visitor_reads_what_another_uploaded(page) -> None:
    mine = page.upload(PHOTO)
    theirs = page.upload(PHOTO)  # a stranger who has the same photo learns nothing from it
    assert Path(mine).parent != Path(theirs).parent
    assert page.web.get(f"/gradio_api/file={mine}").status_code == 404
    done = page.press("on_incoming", [{"incoming": mine}], session="mine")
    assert done["success"] and "data:image" in json.dumps(done["output"]["data"])
    assert not Path(mine).exists()
    # From here on the path is worth nothing, even to somebody who has seen it.
    event, data = page.inpaint({"path": mine} | FILE)
    assert event == "error" and "not an uploaded file" in data["error"]
    assert "not an uploaded file" in page.press("on_incoming", [{"incoming": mine}])["said"][-1]
    kept = [path for path in (page.folder / "kept").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        # 128 bits of chance: nobody gets there by trying, and no name says what is inside.
        assert re.fullmatch(r"[0-9a-f]{32}", path.parent.name)
        file = {"path": str(path)} | FILE
        event, data = page.inpaint(file)
        assert event == "error" and "not an uploaded file" in data["error"]
        assert "not an uploaded" in page.press("on_incoming", [{"incoming": str(path)}])["said"][-1]
        assert path.exists()
    for folder in (page.folder, page.folder / "kept", kept[0].parent):
        assert page.web.get(f"/gradio_api/file={folder}").status_code == 404
        assert page.web.get(f"/gradio_api/file={folder}/").status_code == 404


def test_no_session_sees_the_state_of_another(page) -> None:
    path = page.upload(PHOTO)
    page.press("on_incoming", [{"incoming": path}], session="first")
    mask = {"key": "k", "mask": f"data:image/png;base64,{MASK}"}
    own = page.press("on_plan", [mask, None, REPAINT, [], 50], session="first")
    other = page.press("on_plan", [mask, None, REPAINT, [], 50], session="second")
    # A session that opened nothing works on the example photo, and never on the first one's.
    fresh = page.press("on_plan", [mask, None, REPAINT, [], 50], session="third")
    grids = [json.dumps(run["output"]["data"][0].get("known")) for run in (own, other, fresh)]
    assert grids[0] != grids[1] == grids[2]
    assert (
        page.web.get("/gradio_api/deep_link", params={"session_hash": "first"}).status_code == 404
    )


def test_a_result_is_served_once_its_visitor_knows_its_name(page) -> None:
    from demo.photos import PhotoStore

    path = PhotoStore().save(noise(3))
    answer = page.web.get(f"/gradio_api/file={path}")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-type"] == "image/png"


# ---- a full disk ---------------------------------------------------------------------------------


def test_with_a_full_disk_files_are_refused_in_words_and_images_are_still_made(
    page, monkeypatch
) -> None:
    from demo.storage import NO_ROOM

    path = page.upload(PHOTO)
    kept = sorted((page.folder / "kept").rglob("*"))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    save = Image.Image.save

    def save_a_little(self: Image.Image, place: Any, *args: Any, **options: Any) -> None:
        if not isinstance(place, str | Path):
            return save(self, place, *args, **options)
        Path(place).write_bytes(b"a little")
        raise full

    def no_file(*_: Any, **__: Any) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save_a_little)
        patch.setattr(route_utils, "NamedTemporaryFile", no_file)
        answer = page.web.post("/gradio_api/upload", files={"files": ("a.png", PHOTO)})
        assert (answer.status_code, answer.json()) == (507, {"detail": NO_ROOM})
        done = page.press("on_incoming", [{"incoming": path}])
        assert done["success"] and NO_ROOM in done["said"][-1]
        assert sorted((page.folder / "kept").rglob("*")) == kept  # nothing half written
        assert page.press("on_example", [{"clicked": "sea"}])["said"] == []
        event, (last,) = page.call("generate", GENERATE)
        assert event == "complete" and len(last["images"]) == 1
    assert page.press("on_incoming", [{"incoming": page.upload(PHOTO)}])["said"] == []
    assert sorted((page.folder / "kept").rglob("*")) != kept


# ---- odd files and odd calls ---------------------------------------------------------------------


def test_odd_images_are_answered(page) -> None:
    sample = odd_images()[::9]
    assert len({name.split("-")[0] for name, _ in sample}) == 11
    for name, content in sample:
        event, data = page.inpaint(as_text(content))
        check_answer(event, data)
        assert event == "complete" or data["error"].startswith(("image: The file ", "mask must be"))
        done = page.press("on_incoming", [{"incoming": page.upload(content, f"{name}.png")}])
        assert done["success"]  # with a notice where there is nothing to show
        assert all(text.startswith("This photo cannot be opened.") for text in done["said"])
        for text in done["said"]:
            check_words(text)
    assert page.call("classes", [])[0] == "complete"


def test_any_call_of_a_function_is_answered(page) -> None:
    @settings(max_examples=25)
    @given(
        st.sampled_from(["generate", "inpaint"]),
        st.dictionaries(st.integers(0, 13), junk, min_size=1, max_size=3),
        st.integers(0, 16),
    )
    def check(name: str, odd: dict[int, Any], count: int) -> None:
        data = [odd.get(index, value) for index, value in enumerate(VALID[name])]
        if count == 16:
            data = (data + list(odd.values()))[: len(data) + 1]
        elif count < 3:
            data = data[:-1]
        sent = json.loads(json.dumps(data, default=lambda value: value.hex()))
        check_answer(*page.call(name, sent))

    check()
    for name, data in VALID.items():
        assert page.call(name, data)[0] == "complete"
    assert page.call("models", [])[0] == "complete"


def test_any_press_of_a_button_is_answered(page) -> None:
    numbers = [i for i, fn in page.demo.fns.items() if fn.fn is not None]

    @settings(max_examples=25)
    @given(st.sampled_from(numbers), st.lists(junk, max_size=4))
    def check(number: int, data: list[Any]) -> None:
        sent = json.loads(json.dumps(data, default=lambda value: value.hex()))
        wanted = len(page.demo.fns[number].inputs)
        sent = (sent * wanted)[:wanted] if sent else [None] * wanted
        body = {"data": sent, "fn_index": number, "session_hash": "fuzz"}
        headers = {"Content-Type": "application/json"}
        answer = page.web.post(
            "/gradio_api/queue/join", content=json.dumps(body).encode(), headers=headers
        )
        if answer.status_code != 200:
            return told(answer) and None
        stream = page.web.get("/gradio_api/queue/data", params={"session_hash": "fuzz"}).text
        done = [
            json.loads(text)
            for text in re.findall(r"^data: (.*)$", stream, re.MULTILINE)
            if '"process_completed"' in text
        ]
        assert done, stream[-500:]
        if not done[-1]["success"]:
            check_answer("error", done[-1]["output"])

    check()
    assert page.call("models", [])[0] == "complete"


DEEP = 20_000
BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"data": null}',
    b'{"data": {}}',
    b'{"data": "x"}',
    b'{"data": []}',
    b'{"data": [NaN, Infinity, -Infinity]}',
    b'{"data": [["sea"], NaN, 1e999]}',
    b'{"data": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"data": ' + b"[" * 400 + b"]" * 400 + b"}",
    b'{"data": [' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"]}",
    b'{"data": ["' + b"x" * 2_000_000 + b'"]}',
    b'{"data": [], "fn_index": 99999, "session_hash": "f"}',
    b'{"data": [], "fn_index": -1, "session_hash": "f"}',
    b'{"data": [], "fn_index": "x", "session_hash": "f"}',
    b'{"data": [], "fn_index": 0, "session_hash": {}}',
    b'{"data": [], "fn_index": 0, "trigger_id": "x", "session_hash": "f", "event_id": "../x"}',
    b"\xff\xfe\x00",
]


@pytest.mark.parametrize("place", ["call/generate", "call/v2/inpaint", "run/predict", "queue/join"])
def test_any_body_is_answered(page, place: str) -> None:
    for body in BODIES:
        for kind in ("application/json", "text/plain"):
            headers = {"Content-Type": kind}
            answer = page.web.post(f"/gradio_api/{place}", content=body, headers=headers)
            if answer.status_code == 500:  # a call past the queue fails with its sentence
                assert place == "run/predict"
                check_answer("error", answer.json())
            elif answer.status_code != 200:
                told(answer)
            elif "event_id" in answer.json() and place.startswith("call/"):
                name = place.split("/")[-1]
                event = answer.json()["event_id"]
                check_answer(*page.follow(f"/gradio_api/call/{name}/{event}"))
    assert page.call("models", [])[0] == "complete"


def test_uploads_in_any_form_are_answered(page) -> None:
    for name in ("../../x.png", "x" * 4_000 + ".png", "\0", "..", "/", "a/b\\c", ".", "é🌊.png"):
        answer = page.web.post("/gradio_api/upload", files={"files": (name, PHOTO)})
        if answer.status_code == 200:
            assert all(Path(path).is_relative_to(page.folder) for path in answer.json())
        else:
            told(answer)
    for body in (b"", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\n"):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = page.web.post("/gradio_api/upload", content=body, headers=headers)
        assert answer.status_code == 200 or told(answer)
    assert page.web.post("/gradio_api/upload", json={}).status_code == 400
