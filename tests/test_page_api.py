"""The page seen from outside a browser: `gradio_client`, raw requests, and the command line."""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import tiny
from demo.settings import FIELDS
from icc import wide_rgb_profile
from maskgit_core.config import SamplingConfig
from maskgit_core.data.image_files import recipe_of
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


def test_only_the_five_functions_are_public(client) -> None:
    names = client.view_api(return_format="dict")["named_endpoints"]
    assert set(names) == {"/generate", "/inpaint", "/outpaint", "/classes", "/models"}
    first = names["/generate"]["parameters"]
    assert [(p["parameter_name"], p["parameter_default"]) for p in first[2:4]] == [
        ("seed", 0),
        ("num_steps", None),
    ]
    for name in ("/generate", "/inpaint", "/outpaint"):
        told = [p["parameter_name"] for p in names[name]["parameters"]]
        start = told.index("num_steps")
        ordered = sorted(FIELDS, key=lambda field: field.later)
        assert told[start : start + len(FIELDS)] == [field.name for field in ordered]


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_with_an_orientation_and_its_mask(client, orientation: int) -> None:
    plain, _ = photo_and_mask()
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "SECRETCAMERA"
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", exif=exif)
    content = base64.b64encode(buffer.getvalue()).decode()
    upright = ImageOps.exif_transpose(Image.open(buffer))
    for seen in (upright, plain):
        if seen is plain and upright.size == plain.size:
            continue
        mask = Image.new("L", seen.size, 0)
        mask.paste(255, (2, 3, 12, 9))
        answer = client.predict(content, to_text(mask), "sea", num_steps=2, api_name="/inpaint")
        assert "SECRET" not in base64.b64decode(answer["images"][0].split(",")[1]).decode("latin-1")
        after, kept = from_text(answer["images"][0]), np.asarray(mask) == 0
        assert (after[kept] == np.asarray(seen)[kept]).all()
        assert (after[~kept] != np.asarray(seen)[~kept]).any()


def test_a_wide_gamut_keeps_its_pixels_and_its_profile(client) -> None:
    photo, mask = photo_and_mask()
    buffer = io.BytesIO()
    photo.save(buffer, "PNG", icc_profile=wide_rgb_profile())
    content = base64.b64encode(buffer.getvalue()).decode()
    for name, words in (("/inpaint", [to_text(mask)]), ("/outpaint", [0.5])):
        answer = client.predict(content, *words, label="sea", num_steps=2, api_name=name)
        made = Image.open(io.BytesIO(base64.b64decode(answer["images"][0].split(",")[1])))
        assert made.info["icc_profile"] == wide_rgb_profile()
        after = np.asarray(made)[:, -40:]
        kept = np.asarray(mask) == 0 if name == "/inpaint" else np.ones((30, 40), bool)
        assert (after[kept] == np.asarray(photo)[kept]).all()


@pytest.mark.parametrize("mode", ["1", "LA", "I;16", "F", "0 and 1"])
def test_a_mask_of_any_mode(client, mode: str) -> None:
    photo, mask = photo_and_mask()
    bits = (np.asarray(mask) > 0).astype(np.uint8)
    drawn = {
        "I;16": lambda: Image.fromarray(bits.astype(np.uint16) * 65535),
        "F": lambda: Image.fromarray(bits.astype(np.float32)),
        "0 and 1": lambda: Image.fromarray(bits),
    }.get(mode, lambda: mask.convert(mode))()
    buffer = io.BytesIO()
    drawn.save(buffer, "TIFF" if mode == "F" else "PNG")
    sent = base64.b64encode(buffer.getvalue()).decode()
    first, second = (
        client.predict(to_text(photo), text, "sea", num_steps=2, api_name="/inpaint")["images"]
        for text in (sent, to_text(mask))
    )
    assert first == second


def test_a_box_says_what_the_model_sees(client) -> None:
    values = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    photo, mask = Image.fromarray(values), Image.new("L", (400, 300), 0)
    mask.paste(255, (100, 100, 140, 130))
    ask = partial(
        client.predict, to_text(photo), to_text(mask), "sea", num_steps=2, api_name="/inpaint"
    )
    tight = ask()
    assert tight["recipe"]["box"] == [80, 75, 160, 155]  # twice as wide as the hole
    assert ask(box=[80, 75, 160, 155])["images"] == tight["images"]
    wide = ask(box=[0, 0, 300, 300])
    assert wide["images"] != tight["images"]
    kept = np.asarray(mask) == 0
    assert (from_text(wide["images"][0])[kept] == values[kept]).all()
    for box in ([0, 0, 110, 110], [1, 2], "box", [80.5, 75, 160, 155], [None] * 4):
        with pytest.raises(Exception, match="box must"):
            ask(box=box)


def test_outpaint_keeps_the_photo(client) -> None:
    photo, _ = photo_and_mask()
    ask = partial(client.predict, to_text(photo), num_steps=2, api_name="/outpaint")
    answer = ask(left=0.5, down=1, label="1", count=2, seed=4)
    first, second = (from_text(image) for image in answer["images"])
    assert first.shape == (60, 60, 3) and (first != second).any()
    for image in (first, second):
        assert (image[:30, 20:] == np.asarray(photo)).all()
    recipe = answer["recipe"]
    assert (recipe["left"], recipe["down"], recipe["class"]) == (0.5, 1, "sea")
    for sides in ({}, {"left": 2}, {"left": "x"}, {"up": -0.5}, {"up": None}):
        with pytest.raises(Exception, match="must be"):
            ask(**sides)


def test_class_numbers_as_text_mean_the_same(client) -> None:
    photo, mask = photo_and_mask()
    for label in (1, "1", " 1 ", "SEA"):
        recipe = client.predict(
            to_text(photo), to_text(mask), label, num_steps=1, api_name="/inpaint"
        )["recipe"]
        assert recipe["class"] == "sea"
        made = client.predict([label], num_steps=1, api_name="/generate")
        assert made["recipe"]["classes"] == ["sea"]
    for label in ("none", "No class", "", None):
        answer = client.predict(
            to_text(photo), to_text(mask), label, num_steps=1, api_name="/inpaint"
        )
        assert answer["recipe"]["class"] == "No class"
    with pytest.raises(Exception, match="There is no class '3'"):
        client.predict(["3"], num_steps=1, api_name="/generate")


def test_images_carry_their_recipe(client) -> None:
    answer = client.predict(["sea", "sea", "forest"], 3, 5, num_steps=2, api_name="/generate")
    assert answer["recipe"]["classes"] == ["sea", "sea", "forest"]
    for i, text in enumerate(answer["images"]):
        image = Image.open(io.BytesIO(base64.b64decode(text.split(",")[1])))
        assert recipe_of(image) == {**answer["recipe"], "image": i}


def test_a_call_may_leave_out_what_has_a_default(page_url: str) -> None:
    photo, mask = photo_and_mask()
    for name, data in (
        ("inpaint", [to_text(photo), to_text(mask)]),
        ("inpaint", [to_text(photo), to_text(mask), "sea", 1, 0, 2]),
        ("generate", [["sea"]]),
        ("outpaint", [to_text(photo), 0.5]),
    ):
        assert "event: complete" in call(page_url, name, data), name
    for name in ("inpaint", "outpaint", "generate"):
        answer = call(page_url, name, [])
        assert "event: error" in answer and "Traceback" not in answer


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
