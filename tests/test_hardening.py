"""The running page against strangers: what they may reach and read, and what they are told."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from gradio import route_utils
from PIL import Image

from demo.runs.edit_session import REPAINT
from odd_images import noise
from page_client import FILE, GENERATE, MASK, PHOTO, check_answer

FUNCTIONS = {"generate", "inpaint", "outpaint", "classes", "models"}


# ---- addresses -----------------------------------------------------------------------------------


def test_every_answer_says_how_it_may_be_used(site) -> None:
    for address in ("/", "/config", "/gradio_api/info", "/nothing", "/gradio_api/file=/etc/passwd"):
        headers = site.web.get(address).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert (
            "frame-ancestors 'self' https://huggingface.co;" in headers["content-security-policy"]
        )
        assert "x-frame-options" not in headers  # it could not name who may


def test_addresses_that_the_page_has_no_use_for_are_closed(site) -> None:
    secret = site.demo.app.analytics_key if hasattr(site.demo.app, "analytics_key") else "x"
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
        assert site.web.get(address).status_code == 404, address
    for address in ("process_recording", "component_server", "vibe-edit", "stream/a"):
        assert site.web.post(f"/gradio_api/{address}", json={}).status_code == 404, address
    for address in ("/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/openapi.json"):
        assert site.web.get(address).status_code == 200, address


def test_only_documented_functions_answer_to_a_name(site) -> None:
    info = site.web.get("/gradio_api/info").json()
    assert {name.strip("/") for name in info["named_endpoints"]} == FUNCTIONS
    assert not info["unnamed_endpoints"]
    names = {fn.api_name for fn in site.demo.fns.values() if isinstance(fn.api_name, str)}
    assert names > FUNCTIONS
    for fn in site.demo.fns.values():
        assert fn.api_name in FUNCTIONS or fn.api_visibility == "private", fn.name
    for name in (names - FUNCTIONS) | {"load", "nonsense", "__proto__"}:
        for kind in ("call", "call/v2", "run", "api"):
            answer = site.web.post(f"/gradio_api/{kind}/{name}", json={"data": []})
            assert answer.status_code == 404, (kind, name)
    # What queues cannot be called past the queue.
    body = {"data": [["sea"]]}
    assert site.web.post("/gradio_api/run/generate", json=body).status_code == 404


def test_another_site_is_not_let_in(site) -> None:
    headers = {"Origin": "https://evil.example"}
    answer = site.web.get("/config", headers=headers)
    assert answer.headers.get("access-control-allow-origin") != "https://evil.example"


def test_bodies_are_bounded(site, monkeypatch) -> None:
    from demo.hardening import gate

    monkeypatch.setattr(gate, "MAX_JSON_BYTES", 2_000)
    monkeypatch.setattr(gate, "MAX_FILE_BYTES", 2_000)
    monkeypatch.setattr(gate, "FORM_BYTES", 0)
    text = json.dumps({"data": ["x" * 3_000]}).encode()
    headers = {"Content-Type": "application/json"}
    for content in (text, iter([text[:1_500], text[1_500:]])):
        address = "/gradio_api/call/generate"
        assert site.web.post(address, content=content, headers=headers).status_code == 413
    files = {"files": ("x.png", b"x" * 3_000)}
    assert site.web.post("/gradio_api/upload", files=files).status_code == 413


def test_an_upload_is_cut_at_its_limit(site) -> None:
    assert site.demo.max_file_size == 25 * 1024**2


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
def test_addresses_from_clients_are_never_fetched(site, fetched, address: str) -> None:
    from demo.hardening.gradio_patches import NOT_FETCHED

    for file in ({"path": address} | FILE, {"path": address, "url": address} | FILE):
        event, data = site.inpaint(file)
        assert (event, data["error"]) == ("error", NOT_FETCHED)
        done = site.press("on_upload", [file])
        assert not done["success"] and done["output"]["error"] == NOT_FETCHED
    for file in ({"path": address}, {"url": address}, address, {"url": address} | FILE):
        event, data = site.inpaint(file)
        assert event == "error"
        check_answer(event, data)
    assert site.web.get(f"/gradio_api/file={address}").status_code == 404
    assert site.web.get(f"/gradio_api/proxy={address}").status_code == 404
    site.press("on_incoming", [{"incoming": address}])
    assert not fetched


def test_files_of_the_machine_are_never_opened(site) -> None:
    here = str(Path(__file__).resolve())
    example = str(Path(__file__).parents[1] / "demo" / "examples" / "sea.jpg")
    for path in ("/etc/passwd", here, example, f"{site.folder}/../x", "file:///etc/passwd"):
        for file in ({"path": path}, {"path": path} | FILE):
            event, data = site.inpaint(file)
            assert event == "error" and "not an uploaded file" in data["error"], data
            check_answer(event, data)
        done = site.press("on_upload", [{"path": path} | FILE])
        assert not done["success"] and "not an uploaded file" in done["output"]["error"]
        said = site.press("on_incoming", [{"incoming": path}])["said"]
        assert "not an uploaded file" in said[-1]
        assert site.web.get(f"/gradio_api/file={path}").status_code == 404
    assert Path(example).exists()


# ---- visitors among themselves -------------------------------------------------------------------


def test_no_visitor_reads_what_another_uploaded(site) -> None:
    mine = site.upload(PHOTO)
    theirs = site.upload(PHOTO)  # a stranger who has the same photo learns nothing from it
    assert Path(mine).parent != Path(theirs).parent
    assert site.real(mine).read_bytes() == PHOTO
    assert str(site.folder) not in mine
    assert site.web.get(f"/gradio_api/file={mine}").status_code == 404
    done = site.press("on_incoming", [{"incoming": mine}], session="mine")
    assert done["success"] and "data:image" in json.dumps(done["output"]["data"])
    assert not site.real(mine).exists()
    # From here on the path is worth nothing, even to somebody who has seen it.
    event, data = site.inpaint({"path": mine} | FILE)
    assert event == "error" and "not an uploaded file" in data["error"]
    assert "not an uploaded file" in site.press("on_incoming", [{"incoming": mine}])["said"][-1]
    kept = [path for path in (site.folder / "kept").rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        # 128 bits of chance: nobody gets there by trying, and no name says what is inside.
        assert re.fullmatch(r"[0-9a-f]{32}", path.parent.name)
        told = "/files/" + str(path.relative_to(site.folder))
        for name in (told, str(path)):
            event, data = site.inpaint({"path": name} | FILE)
            assert event == "error" and "not an uploaded file" in data["error"]
            said = site.press("on_incoming", [{"incoming": name}])["said"]
            assert "not an uploaded" in said[-1]
        assert path.exists()
    for folder in (site.folder, site.folder / "kept", "/files", "/files/kept", "/files/../x"):
        assert site.web.get(f"/gradio_api/file={folder}").status_code == 404
        assert site.web.get(f"/gradio_api/file={folder}/").status_code == 404


def test_no_session_sees_the_state_of_another(site) -> None:
    path = site.upload(PHOTO)
    site.press("on_incoming", [{"incoming": path}], session="first")
    mask = {"key": "k", "mask": f"data:image/png;base64,{MASK}"}
    own = site.press("on_plan", [mask, None, REPAINT, [], 50], session="first")
    other = site.press("on_plan", [mask, None, REPAINT, [], 50], session="second")
    # A session that opened nothing works on the example photo, and never on the first one's.
    fresh = site.press("on_plan", [mask, None, REPAINT, [], 50], session="third")
    grids = [json.loads(run["output"]["data"][0])["known"] for run in (own, other, fresh)]
    assert grids[0] != grids[1] == grids[2]
    assert (
        site.web.get("/gradio_api/deep_link", params={"session_hash": "first"}).status_code == 404
    )


def test_a_result_is_served_once_its_visitor_knows_its_name(site) -> None:
    from demo.runs.photos import PhotoStore

    path = PhotoStore().save(noise(3))
    assert site.web.get(f"/gradio_api/file={path}").status_code == 404
    name = "/files/" + str(Path(path).relative_to(site.folder))
    answer = site.web.get(f"/gradio_api/file={name}")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-type"] == "image/png"


# ---- a full disk ---------------------------------------------------------------------------------


def test_with_a_full_disk_files_are_refused_in_words_and_images_are_still_made(
    site, monkeypatch
) -> None:
    from demo.hardening.storage import NO_ROOM

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    save = Image.Image.save

    def save_a_little(self: Image.Image, place: Any, *args: Any, **options: Any) -> None:
        if not isinstance(place, str | Path):
            return save(self, place, *args, **options)
        Path(place).write_bytes(b"a little")
        raise full

    def no_file(*_: Any, **__: Any) -> None:
        raise full

    # Room is made by taking away what is oldest, so what is needed below comes last.
    for _ in range(3):
        site.upload(PHOTO)
    path = site.upload(PHOTO)
    kept = sorted((site.folder / "kept").rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", save_a_little)
        patch.setattr(route_utils, "NamedTemporaryFile", no_file)
        answer = site.web.post("/gradio_api/upload", files={"files": ("a.png", PHOTO)})
        assert (answer.status_code, answer.json()) == (507, {"detail": NO_ROOM})
        done = site.press("on_incoming", [{"incoming": path}])
        assert done["success"] and NO_ROOM in done["said"][-1]
        assert {*(site.folder / "kept").rglob("*")} <= {*kept}  # nothing half written
        assert site.press("on_example", [{"clicked": "sea"}])["said"] == []
        event, (last,) = site.call("generate", GENERATE)
        assert event == "complete" and len(last["images"]) == 1
    assert site.press("on_incoming", [{"incoming": site.upload(PHOTO)}])["said"] == []
    assert sorted((site.folder / "kept").rglob("*")) != kept
