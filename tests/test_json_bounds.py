"""Bodies are counted before they are parsed."""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.hardening import json_bounds
from demo.hardening.json_bounds import TooMuchError, has_plain_ids, is_plain_id, parse_bounded
from odd_values import DEAR

PHOTO = base64.b64encode(os.urandom(3 * 2**20)).decode()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(values, st.booleans())
def test_usual_bodies_are_parsed_as_ever(value, ascii_only: bool) -> None:
    body = json.dumps({"data": [value]}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(body)
    except ValueError:
        return
    assert parse_bounded(body) == expected


def test_photos_may_be_long() -> None:
    body = {"data": [f"data:image/png;base64,{PHOTO}", PHOTO, "sea", 1], "session_hash": "a-b_9"}
    assert parse_bounded(json.dumps(body).encode()) == body
    assert has_plain_ids(body)


@pytest.mark.parametrize("name", DEAR)
def test_dear_bodies_are_refused(name, monkeypatch) -> None:
    def never(_: bytes) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(json_bounds.json, "loads", never)
    with pytest.raises(TooMuchError):
        parse_bounded(DEAR[name])


@pytest.mark.parametrize("body", [b'{"a', b'{"a":', b"nonsense", b'["\\', b"\xff\xfe\x00"])
def test_what_is_no_json_is_an_error(body) -> None:
    with pytest.raises(ValueError, match="."):
        parse_bounded(body)


@pytest.mark.parametrize("text", ["", "a" * 65, "a/b", "../x", "a b", "é", 7, None, ["a"], {}])
def test_ids_are_short_and_plain(text) -> None:
    assert not is_plain_id(text)
    if text is not None:
        assert not has_plain_ids({"session_hash": text})
    assert has_plain_ids({"session_hash": None, "event_id": "0af3"})
    assert not has_plain_ids(["session_hash"])
