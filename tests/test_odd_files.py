"""Strange files and strange values: an answer or one sentence, whatever comes."""

from __future__ import annotations

import base64
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import tiny
from demo import api
from demo.hardening import storage
from demo.runs import compare, edit, generate, photos, recipes, redo
from demo.runs.edit_frame import parse_sides
from demo.runs.edit_session import EXTEND, REPAINT, EditSession, Task
from demo.runs.follow import follow
from demo.runs.photos import PhotoStore, open_photo, take_upload
from demo.serving.request import Request
from demo.serving.steps import decode_alone
from demo.settings import FIELDS, RequestError
from odd_images import COUNT, KINDS, noise, odd_images, saved
from odd_values import junk

ODD = odd_images()
READABLE = {"animated", "two_in_one", "rare_mode", "with_profile", "with_exif"}
UNREADABLE = {"wrong_magic", "huge", "empty"}


def test_there_are_enough_of_every_kind() -> None:
    assert len(ODD) == COUNT == 200
    kinds = {kind.__name__ for kind in KINDS}
    assert kinds == {name.split("-")[0] for name, _ in ODD} >= READABLE | UNREADABLE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_every_file_is_opened_or_refused_in_one_sentence(kind: str) -> None:
    for name, content in ODD:
        if name.split("-")[0] != kind:
            continue
        try:
            photo = open_photo(content)
        except RequestError as error:
            # Nobody brings a photo as PPM, and its decoder can be kept busy.
            assert kind not in READABLE or "PPM" in str(error), (name, error)
            assert str(error).startswith("The file ") and str(error).count("\n") == 0
            assert len(str(error)) < 200 and "0x" not in str(error)
        else:
            assert kind not in UNREADABLE, name
            assert photo.mode in ("RGB", "RGBA") and min(photo.size) > 0
            assert not photo.info


def test_sixteen_bits_are_not_cut_off() -> None:
    values = np.linspace(0, 65_535, 256, dtype=np.uint16).reshape(16, 16)
    shown = np.asarray(open_photo(saved(Image.fromarray(values), "PNG")))[..., 0]
    assert np.abs(shown.astype(int) - values // 257).max() <= 1


def test_a_photo_is_upright_and_says_nothing_about_where_it_was_taken(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SECRETCAMERA"
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"exif": exif, "icc_profile": profile, "comment": b"SECRETPLACE"}
    content = saved(noise(1, size=(30, 20)), "JPEG", **options)
    assert b"SECRETCAMERA" in content and b"SECRETPLACE" in content
    photo = open_photo(content)
    assert photo.size == (20, 30)
    kept = Path(PhotoStore(tmp_path).save(photo)).read_bytes()
    assert b"SECRET" not in kept
    with Image.open(io.BytesIO(kept)) as again:
        assert not again.info and not again.getexif()


def wide_profile() -> bytes:
    """A colour profile whose primaries are red and green changed places."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {}
    for index in range(int.from_bytes(content[128:132], "big")):
        entry = 132 + 12 * index
        at[bytes(content[entry : entry + 4])] = entry + 4
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    content[red : red + 8], content[green : green + 8] = (
        content[green : green + 8],
        content[red : red + 8],
    )
    return bytes(content).replace(b"s\0R\0G\0B", b"o\0d\0d\0!")


def test_colours_are_as_the_profile_says() -> None:
    image = Image.new("RGB", (4, 4), (200, 30, 30))
    shown = open_photo(saved(image, "PNG", icc_profile=wide_profile())).getpixel((0, 0))
    assert shown[1] > 150 > shown[0]
    usual = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert open_photo(saved(image, "PNG", icc_profile=usual)).getpixel((0, 0)) == (200, 30, 30)


# ---- uploads -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def test_an_upload_can_be_taken_once(folder) -> None:
    path = folder / "abc" / "photo.png"
    path.parent.mkdir()
    path.write_bytes(b"content")
    assert take_upload(str(path)) == b"content"
    assert not path.exists()
    with pytest.raises(RequestError, match="Upload it again"):
        take_upload(str(path))


def test_other_files_are_neither_taken_nor_touched(folder) -> None:
    kept = PhotoStore().save(noise(1))
    assert Path(kept).is_relative_to(folder)
    outside = folder.parent / "outside.txt"
    outside.write_text("private")
    link = folder / "link"
    link.symlink_to(outside)
    for path in (kept, str(outside), str(link), f"{folder}/../outside.txt", str(folder)):
        with pytest.raises(RequestError, match="not an uploaded file"):
            take_upload(path)
    assert Path(kept).exists() and outside.read_text() == "private"


def test_a_large_upload_is_not_read_whole(folder) -> None:
    path = folder / "large"
    path.write_bytes(b"x" * 11)
    with pytest.raises(RequestError, match="too large"):
        take_upload(str(path), most=10)


def extend(model, photo, directions, amount, name, count, seed, values) -> Request:
    made = edit.extend(model, photo, parse_sides(directions, amount))
    return edit.edit_request(model, made, name, count, seed, values)


def test_results_that_would_be_enormous_are_refused(tiny_model) -> None:
    photo = Image.new("RGB", (6_000, 6_000))
    for arguments in ((["left", "up"], 100, "sea", 1), (["left"], 50, "sea", 4)):
        with pytest.raises(RequestError, match="megapixels"):
            extend(tiny_model, photo, *arguments, 0, {})


# ---- the disk ------------------------------------------------------------------------------------


def write(folder: Path, name: str, size: int, age: float) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    then = time.time() - age
    os.utime(path, (then, then))
    os.utime(path.parent, (then, then))
    return path


def test_old_files_go_and_their_folders_too(tmp_path) -> None:
    old, new = write(tmp_path, "a/old", 5, 500), write(tmp_path, "b/new", 7, 5)
    os.utime(old.parent, (1, 1))
    assert storage.sweep(tmp_path, keep_seconds=100) == 7
    assert not old.exists() and new.exists()
    os.utime(old.parent, (1, 1))
    storage.sweep(tmp_path, keep_seconds=100)
    assert not old.parent.exists() and new.exists()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200)), max_size=20))
def test_room_is_taken_from_who_uses_the_most(made) -> None:
    with tempfile.TemporaryDirectory() as place:
        files = storage.Files(most_bytes=4 * storage.FILE_COST + 300)
        paths: dict[str, list[Path]] = {}
        for number, (owner, size) in enumerate(made):
            path = write(Path(place), f"{number}/f", size, 0)
            before = {name: sum(p.exists() for p in some) for name, some in paths.items()}
            paths.setdefault(owner, []).append(path)
            files.add(owner, path)
            there = [p for some in paths.values() for p in some if p.exists()]
            assert files.total == sum(p.stat().st_size + storage.FILE_COST for p in there)
            assert files.total <= files.most_bytes
            for name, some in paths.items():
                kept = [p.exists() for p in some]
                assert kept == sorted(kept)  # the oldest go first
                if name != owner and sum(kept) < before[name]:
                    assert sum(kept) + 1 >= sum(p.exists() for p in paths[owner])


# ---- strange values ------------------------------------------------------------------------------

values = st.dictionaries(
    st.one_of(st.sampled_from([field.name for field in FIELDS]), st.text(max_size=5)),
    junk,
    max_size=4,
)
MODEL = tiny.model()
REQUEST = generate.parse_generate(MODEL, ["sea"], 1, 0, {"num_steps": 2})
*_, LAST = follow(REQUEST, decode_alone(MODEL))
RUN = LAST.run
PHOTO = tiny.picture(1)
MASK = np.ones(PHOTO.size[::-1], dtype=bool)
EDIT = edit.repaint(MODEL, PHOTO, MASK)
PHOTO_TEXT = base64.b64encode(saved(PHOTO, "PNG")).decode()

TARGETS = {
    "generate": lambda a, b, c, d, v: generate.parse_generate(MODEL, [a], b, c, v),
    "compare": lambda a, b, c, d, v: compare.parse_compare(MODEL, a, b, c, v),
    "redo": lambda a, b, c, d, v: redo.parse_redo(MODEL, RUN, a, b, v),
    "redo-this": lambda a, b, c, d, v: redo.parse_redo(
        MODEL, RUN, {"run": RUN["run"], "cells": a}, b, v
    ),
    "edit": lambda a, b, c, d, v: edit.edit_request(MODEL, EDIT, a, b, c, v, d),
    "frame": lambda a, b, c, d, v: edit.repaint(MODEL, PHOTO, MASK, a),
    "extend": lambda a, b, c, d, v: extend(MODEL, PHOTO, a, b, c, d, 0, v),
    "painted": lambda a, b, c, d, v: photos.painted_mask(a, (20, 24)),
    "painted-mask": lambda a, b, c, d, v: photos.painted_mask({"mask": a}, (20, 24)),
    "image": lambda a, b, c, d, v: api.read_image(a, "image"),
    "mask": lambda a, b, c, d, v: api.read_with_mask(PHOTO_TEXT, a),
    "image-of-mask": lambda a, b, c, d, v: api.read_with_mask(a, PHOTO_TEXT),
    "box": lambda a, b, c, d, v: edit.repaint(MODEL, PHOTO, MASK, box=a),
    "upload": lambda a, b, c, d, v: take_upload(a),
    "open": lambda a, b, c, d, v: open_photo(a if isinstance(a, bytes) else str(a).encode()),
}


@pytest.mark.parametrize("name", list(TARGETS))
def test_any_value_gives_a_request_or_a_sentence(name: str) -> None:
    @settings(max_examples=30)
    @given(st.tuples(junk, junk, junk, junk, values))
    def check(arguments) -> None:
        try:
            TARGETS[name](*arguments)
        except RequestError as error:
            assert str(error) and len(str(error)) < 400
            assert "Traceback" not in str(error) and "site-packages" not in str(error)

    check()


@settings(max_examples=30)
@given(st.one_of(st.text(), st.binary(), junk.map(str)))
def test_any_text_is_a_recipe_or_a_sentence(text) -> None:
    for read in (recipes.model_in_recipe, lambda t: recipes.settings_from_recipe(["sea"], t)):
        try:
            read(text)
        except RequestError as error:
            assert str(error)


def test_any_painter_value_gives_a_request_or_a_sentence(tmp_path) -> None:
    session = EditSession(MODEL, PhotoStore(tmp_path))
    _, kept = session.open(PHOTO)

    @settings(max_examples=20)
    @given(junk, junk, junk, junk, junk)
    def check(a, b, c, d, e) -> None:
        for mode in (REPAINT, EXTEND, "other"):
            try:
                task = Task(kept, a, mode, b, c)
                session.request(MODEL, task, "sea", 1, d, {}, e)
                session.preview(task)
            except RequestError as error:
                assert str(error)

    check()
