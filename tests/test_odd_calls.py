"""Odd files, calls, presses, bodies and uploads sent to the running page: each is answered."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odd_images import odd_images
from odd_values import junk
from page_client import PHOTO, VALID, as_text, check_answer, check_words, told


def test_odd_images_are_answered(site) -> None:
    sample = odd_images()[::9]
    assert len({name.split("-")[0] for name, _ in sample}) == 11
    for name, content in sample:
        event, data = site.inpaint(as_text(content))
        check_answer(event, data)
        assert event == "complete" or data["error"].startswith(("image: The file ", "mask must be"))
        done = site.press("on_incoming", [{"incoming": site.upload(content, f"{name}.png")}])
        assert done["success"]  # with a notice where there is nothing to show
        assert all(text.startswith("This photo cannot be opened.") for text in done["said"])
        for text in done["said"]:
            check_words(text)
    assert site.call("classes", [])[0] == "complete"


def test_any_call_of_a_function_is_answered(site) -> None:
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
        check_answer(*site.call(name, sent))

    check()
    for name, data in VALID.items():
        assert site.call(name, data)[0] == "complete"
    assert site.call("models", [])[0] == "complete"


def test_any_press_of_a_button_is_answered(site) -> None:
    numbers = [i for i, fn in site.demo.fns.items() if fn.fn is not None]

    @settings(max_examples=25)
    @given(st.sampled_from(numbers), st.lists(junk, max_size=4))
    def check(number: int, data: list[Any]) -> None:
        sent = json.loads(json.dumps(data, default=lambda value: value.hex()))
        wanted = len(site.demo.fns[number].inputs)
        sent = (sent * wanted)[:wanted] if sent else [None] * wanted
        body = {"data": sent, "fn_index": number, "session_hash": "fuzz"}
        headers = {"Content-Type": "application/json"}
        answer = site.web.post(
            "/gradio_api/queue/join", content=json.dumps(body).encode(), headers=headers
        )
        if answer.status_code != 200:
            return told(answer) and None
        stream = site.web.get("/gradio_api/queue/data", params={"session_hash": "fuzz"}).text
        done = [
            json.loads(text)
            for text in re.findall(r"^data: (.*)$", stream, re.MULTILINE)
            if '"process_completed"' in text
        ]
        assert done, stream[-500:]
        if not done[-1]["success"]:
            check_answer("error", done[-1]["output"])

    check()
    assert site.call("models", [])[0] == "complete"


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
def test_any_body_is_answered(site, place: str) -> None:
    for body in BODIES:
        for kind in ("application/json", "text/plain"):
            headers = {"Content-Type": kind}
            answer = site.web.post(f"/gradio_api/{place}", content=body, headers=headers)
            if answer.status_code == 500:  # a call past the queue fails with its sentence
                assert place == "run/predict"
                check_answer("error", answer.json())
            elif answer.status_code != 200:
                told(answer)
            elif "event_id" in answer.json() and place.startswith("call/"):
                name = place.split("/")[-1]
                event = answer.json()["event_id"]
                check_answer(*site.follow(f"/gradio_api/call/{name}/{event}"))
    assert site.call("models", [])[0] == "complete"


def test_uploads_in_any_form_are_answered(site) -> None:
    for name in ("../../x.png", "x" * 4_000 + ".png", "\0", "..", "/", "a/b\\c", ".", "é🌊.png"):
        answer = site.web.post("/gradio_api/upload", files={"files": (name, PHOTO)})
        if answer.status_code == 200:
            assert all(site.real(path).is_file() for path in answer.json())
        else:
            told(answer)
    for body in (b"", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\n"):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = site.web.post("/gradio_api/upload", content=body, headers=headers)
        assert answer.status_code == 200 or told(answer)
    assert site.web.post("/gradio_api/upload", json={}).status_code == 400
