"""Images in child processes: the same pixels, and nothing that a file holds stops the others."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from hostile_images import HOSTILE
from icc import wide_rgb_profile
from maskgit_core.data import decoder as module
from maskgit_core.data.decoder import Decoder, patient_decoder
from maskgit_core.data.image_checks import HostileImageError, check_image_bytes
from maskgit_core.data.images import MAX_PIXELS, load_image
from maskgit_core.editing.masks import as_pixel_mask
from odd_images import noise, saved
from waiting import wait_for

SLOW = b"slow"


@pytest.fixture(scope="module")
def decoder():
    made = Decoder(children=2, seconds=30)
    yield made
    made.close()


@pytest.fixture
def stuck(monkeypatch):
    """A child that never answers what begins with `SLOW`, in place of a decoder that is busy."""
    program = (
        "import sys, time\n"
        "from maskgit_core.data import decoder_child as child\n"
        "opened = child.open_one\n"
        "def open_one(content, *more):\n"
        f"    return time.sleep(600) if content.startswith({SLOW!r}) else opened(content, *more)\n"
        "child.open_one = open_one\n"
        "child.main()\n"
    )
    popen = subprocess.Popen

    def start(command, **options):
        return popen([sys.executable, "-c", program, command[-1]], **options)

    monkeypatch.setattr(module.subprocess, "Popen", start)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_pixels_are_those_of_this_process(decoder, kind, mode) -> None:
    content = saved(noise(3).convert(mode), kind)
    assert np.array_equal(decoder.open(content), load_image(content, keep_alpha=True))


def test_transparency_and_turns_are_kept(decoder) -> None:
    photo = noise(1).convert("RGBA")
    photo.putalpha(noise(2).convert("L"))
    content = saved(photo, "PNG")
    assert np.array_equal(decoder.open(content), load_image(content, keep_alpha=True))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    noise(1).crop((0, 0, 8, 5)).save(file, "PNG", exif=exif)
    assert decoder.open(file.getvalue()).size == (5, 8)


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xd8", saved(noise(1), "PNG")[:60]])
def test_what_is_no_image_is_refused_as_in_this_process(decoder, content) -> None:
    with pytest.raises(ValueError, match="image") as here:
        load_image(content)
    with pytest.raises(ValueError, match="image") as there:
        decoder.open(content)
    assert str(here.value) == str(there.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_are_dear_to_decode_are_refused(decoder, name) -> None:
    content = HOSTILE[name]()
    assert len(content) < 25 * 1024**2
    with pytest.raises(ValueError, match="^image "):
        decoder.open(content)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "png_with_many_pixels"])
def test_they_are_recognised_before_a_decoder_sees_them(name) -> None:
    with pytest.raises(HostileImageError):
        check_image_bytes(HOSTILE[name](), MAX_PIXELS)


def test_usual_files_pass(decoder) -> None:
    large = Image.effect_noise((1500, 1000), 60).convert("RGB")
    for kind, more in (("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("TIFF", {})):
        file = io.BytesIO()
        large.save(file, kind, **more)
        check_image_bytes(file.getvalue(), MAX_PIXELS)
        assert decoder.open(file.getvalue()).size == large.size


def test_a_child_that_takes_too_long_is_replaced(stuck) -> None:
    decoder = Decoder(children=1, seconds=1)
    with pytest.raises(ValueError, match="too long"):
        decoder.open(SLOW)
    assert decoder.open(saved(noise(1), "PNG")).size == noise(1).size
    decoder.close()


def test_memory_is_bounded() -> None:
    decoder = Decoder(children=1, seconds=60, memory_bytes=400 * 1024**2)
    file = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "PNG")
    if sys.platform == "linux":
        with pytest.raises(ValueError, match="memory"):
            decoder.open(file.getvalue())
    assert decoder.open(saved(noise(1), "PNG")).size == noise(1).size
    decoder.close()


def test_one_owner_has_one_child_and_others_go_on(stuck) -> None:
    decoder = Decoder(children=2, seconds=30)
    ended = []

    def busy() -> None:
        with pytest.raises(ValueError, match="image"):
            decoder.open(SLOW, "first")
        ended.append(1)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(decoder._waiting) == 2)
    for _ in range(3):
        assert decoder.open(saved(noise(1), "PNG"), "second").size == noise(1).size
    assert not ended  # all of them still wait for the first's
    for _ in range(3):
        wait_for(lambda: decoder._working)
        decoder._working[0].kill()
        count = len(ended)
        wait_for(lambda count=count: len(ended) > count)
    for thread in threads:
        thread.join(60)
    decoder.close()


def test_so_many_may_wait_and_no_more(stuck, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_OF_ONE", 2)
    decoder = Decoder(children=1, seconds=2)

    def busy() -> None:
        with pytest.raises(ValueError, match="image"):
            decoder.open(SLOW, "first")

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(decoder._waiting) == 2)
    with pytest.raises(ValueError, match="many"):
        decoder.open(SLOW, "first")
    began = time.monotonic()
    assert decoder.open(saved(noise(1), "PNG"), "second").size == noise(1).size
    # Its turn comes after the one that is under way, before the two that wait.
    assert len(decoder._waiting) >= 1, time.monotonic() - began
    for thread in threads:
        thread.join(60)
    decoder.close()


def test_a_child_is_light() -> None:
    program = "import maskgit_core.data.decoder_child, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_stored_photo_keeps_its_frame_and_its_colours(decoder, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "SECRETCAMERA"
    file = io.BytesIO()
    noise(3, size=(8, 5)).save(file, "PNG", exif=exif, icc_profile=wide_rgb_profile())
    found = decoder.open(file.getvalue(), form="stored")
    assert np.array_equal(found, noise(3, size=(8, 5)))
    assert found.getexif().get(0x0112, 1) == orientation
    assert found.info["icc_profile"] == wide_rgb_profile()
    assert b"SECRET" not in found.info.get("exif", b"")
    upright = decoder.open(file.getvalue())
    assert upright.size == ((5, 8) if orientation == 6 else (8, 5)) and not upright.info


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK"])
def test_a_mask_keeps_what_it_says(decoder, mode) -> None:
    bits = (np.random.default_rng(0).random((6, 9)) < 0.5).astype(np.int64)
    drawn = {
        "I;16": lambda: Image.fromarray((bits * 65535).astype(np.uint16)),
        "I": lambda: Image.fromarray((bits * 65535).astype(np.int32)),
        "F": lambda: Image.fromarray(bits.astype(np.float32)),
        "CMYK": lambda: Image.fromarray((bits * 255).astype(np.uint8)).convert("RGB").convert(mode),
    }.get(mode, lambda: Image.fromarray((bits * 255).astype(np.uint8)).convert(mode))()
    kind = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    found = decoder.open(saved(drawn, kind), form="mask")
    assert np.array_equal(as_pixel_mask(found, (9, 6)), bits == 1)


def test_a_mask_drawn_on_a_colour_that_is_left_out(decoder) -> None:
    grey = Image.new("L", (9, 6), 7)
    grey.paste(0, (2, 2, 5, 5))
    file = io.BytesIO()
    grey.save(file, "PNG", transparency=7)
    found = as_pixel_mask(decoder.open(file.getvalue(), form="mask"), (9, 6))
    assert np.array_equal(found, np.asarray(grey) == 0)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_library_refuses_them_too(name) -> None:
    with pytest.raises(ValueError, match="^image "):
        load_image(HOSTILE[name]())


def test_kinds_that_nobody_brings_as_a_photo_are_for_ones_own_files(decoder) -> None:
    content = saved(noise(1), "PPM")
    with pytest.raises(ValueError, match="export it as JPEG"):
        decoder.open(content)
    patient = patient_decoder()
    assert np.array_equal(patient.open(content), noise(1))
    patient.close()
