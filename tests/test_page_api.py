"""The page seen from outside a browser: `gradio_client`, raw requests, and the command line."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from maskgit_core.config import SamplingConfig
from maskgit_core.decoding.previews import LivePictures
from maskgit_core.pipeline import MaskGIT

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def page_model() -> MaskGIT:
    return tiny.model()


@pytest.fixture(scope="module")
def page_url(page_model: MaskGIT) -> Iterator[str]:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from demo.launch import launch_options, queue_options
    from demo.ui import build_demo

    demo = build_demo(page_model)
    demo.queue(**queue_options())
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield url.rstrip("/")
    demo.close()


@pytest.fixture(scope="module")
def client(page_url: str):
    from gradio_client import Client

    return Client(page_url, verbose=False)


def to_text(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def from_text(url: str) -> np.ndarray:
    assert url.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def photo_and_mask() -> tuple[Image.Image, Image.Image]:
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    mask = Image.new("L", (40, 30), 0)
    mask.paste(255, (5, 5, 20, 20))
    return Image.fromarray(values), mask


def test_only_the_four_functions_are_public(client) -> None:
    names = client.view_api(return_format="dict")["named_endpoints"]
    assert set(names) == {"/generate", "/inpaint", "/classes", "/models"}
    first = names["/generate"]["parameters"]
    assert [(p["parameter_name"], p["parameter_default"]) for p in first[2:4]] == [
        ("seed", 0),
        ("num_steps", None),
    ]


def test_settings_that_are_left_out_are_the_models_own(client, page_model, monkeypatch) -> None:
    from demo.settings import shown_values

    own = SamplingConfig(num_steps=3, order="halton", guidance_scale=2.5, top_k=7)
    monkeypatch.setattr(page_model, "sampling", own)
    photo, mask = photo_and_mask()
    calls = [("/generate", [["sea"]]), ("/inpaint", [to_text(photo), to_text(mask), "sea"])]
    for name, arguments in calls:
        recipe = client.predict(*arguments, temperature=0.5, api_name=name)["recipe"]
        expected = {**shown_values(own), "temperature": 0.5}
        assert {field: recipe[field] for field in expected} == expected


def test_classes_and_models(client) -> None:
    assert client.predict(api_name="/classes") == list(tiny.CLASSES)
    (model,) = client.predict(api_name="/models")
    assert (model["image_size"], model["grid_size"], model["codebook_size"]) == (16, 4, 32)


def test_generate_streams_steps_and_repeats_itself(client, monkeypatch) -> None:
    # Pictures of steps that come late are for the page: nothing is told of them here.
    late = partial(LivePictures, share=1e-9)
    for module in ("steps", "local"):
        monkeypatch.setattr(f"demo.serving.{module}.LivePictures", late)
    arguments = {"classes": ["sea", "forest"], "count": 3, "seed": 5, "num_steps": 4}
    job = client.submit(**arguments, api_name="/generate")
    last = job.result()
    outputs = job.outputs()
    assert [output["step"] for output in outputs] == [1, 2, 3, 4, 4]
    left = [np.count_nonzero(np.array(o["tokens"]) == 32) for o in outputs]
    assert left[0] > left[1] > left[2] > left[3] == 0
    assert last["done"] and len(last["images"]) == 3
    assert from_text(last["images"][0]).shape == (16, 16, 3)
    again = client.predict(**arguments, api_name="/generate")
    assert again["images"] == last["images"]
    assert json.loads(json.dumps(last["recipe"]))["classes"] == ["sea", "forest"]


def test_inpaint_keeps_what_is_not_masked(client) -> None:
    photo, mask = photo_and_mask()
    result = client.predict(to_text(photo), to_text(mask), "sea", api_name="/inpaint")
    before, after = np.asarray(photo), from_text(result["images"][0])
    kept = np.asarray(mask) == 0
    assert (before[kept] == after[kept]).all()
    assert (before[~kept] != after[~kept]).any()


def test_inpaint_takes_uploaded_files(client, tmp_path: Path) -> None:
    from gradio_client import handle_file

    photo, mask = photo_and_mask()
    photo.save(tmp_path / "photo.png")
    mask.save(tmp_path / "mask.png")
    files = [handle_file(tmp_path / name) for name in ("photo.png", "mask.png")]
    by_file = client.predict(*files, "sea", api_name="/inpaint")
    by_text = client.predict(to_text(photo), to_text(mask), "sea", api_name="/inpaint")
    assert by_file["images"] == by_text["images"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"classes": ["moon"]}, "moon"),
        ({"classes": []}, "at least one class"),
        ({"classes": ["sea"], "seed": "abc"}, "Seed"),
        ({"classes": ["sea"], "seed": 2**70}, "Seed"),
        ({"classes": ["sea"], "num_steps": 0}, "Steps"),
        ({"classes": ["sea"], "num_steps": 10_000}, "Steps"),
        ({"classes": ["sea"], "count": 10_000}, "Images"),
        ({"classes": ["sea"], "order": "spiral"}, "Order"),
        ({"classes": ["sea"], "top_p": "0"}, "Top p"),
    ],
)
def test_bad_generate_requests_are_explained(client, arguments, word: str) -> None:
    with pytest.raises(Exception, match=word):
        client.predict(**arguments, api_name="/generate")


def test_bad_inpaint_requests_are_explained(client) -> None:
    photo, mask = photo_and_mask()
    cases = [
        ("hello", to_text(mask), "image: An image must come"),
        (base64.b64encode(b"hello").decode(), to_text(mask), "image: The file is no photo"),
        (to_text(photo), to_text(mask.resize((8, 8))), "as large as the image"),
        (to_text(photo), to_text(Image.new("L", (40, 30), 0)), "Paint over the part"),
    ]
    for image, drawn, sentence in cases:
        with pytest.raises(Exception, match=sentence):
            client.predict(image, drawn, "sea", api_name="/inpaint")


def call(page_url: str, name: str, data: list) -> str:
    """Call a function as a stranger would, and return the whole stream of answers."""
    request = urllib.request.Request(
        f"{page_url}/gradio_api/call/{name}",
        json.dumps({"data": data}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{page_url}/gradio_api/call/{name}/{event}") as stream:
        return stream.read().decode()


def test_no_file_of_the_server_can_be_read(page_url: str, tmp_path: Path) -> None:
    _, mask = photo_and_mask()
    secret = ROOT / "demo" / "examples" / "sea.jpg"
    for value in ({"path": str(secret)}, {"path": str(secret), "meta": {"_type": "x"}}):
        answer = call(page_url, "inpaint", [value, to_text(mask), "sea"])
        assert "event: error" in answer and "data:image" not in answer
    for path in ("/etc/passwd", str(ROOT / "app.py"), str(secret)):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{page_url}/gradio_api/file={path}")
        assert error.value.code in (403, 404)


def test_page_itself_names_no_other_machine(page_url: str) -> None:
    with urllib.request.urlopen(page_url + "/") as answer:
        text = answer.read().decode()
    assert "fonts.googleapis.com" not in text
    assert '"enable_analytics": true' not in text and '"analytics_enabled":true' not in text


def test_missing_or_damaged_checkpoint_is_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    for folder in (tmp_path / "missing", tmp_path / "damaged"):
        done = subprocess.run(
            [sys.executable, "app.py", "--checkpoint", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert folder.name in done.stderr
        assert done.stdout == ""


def test_plain_requests_may_leave_arguments_out_at_the_end(page_url: str) -> None:
    # Twelve were all that the first version took, in this order.
    first = [["sea"], 2, 5, 3, "halton", "linear", 3.0, "constant", 0.5, 1.0, 7, 0.9]
    names = ["num_steps", "order", "schedule", "guidance_scale", "guidance_schedule"]
    names += ["temperature", "choice_temperature", "top_k", "top_p"]
    for data in (first, first[:1], first[:4]):
        last = json.loads(call(page_url, "generate", data).strip().splitlines()[-1][6:])[0]
        assert last["done"]
        asked = dict(zip(names, data[3:], strict=False))
        assert {name: last["recipe"][name] for name in asked} == asked
    assert "event: error" in call(page_url, "generate", [])
