"""Colour profiles: what is converted, what is kept, and edits that leave a wide gamut alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

import tiny
from icc import cmyk_profile, grey_profile, wide_rgb_profile
from maskgit_core import SamplingConfig
from maskgit_core.data.colour import from_srgb, rgb_profile, to_srgb
from maskgit_core.data.images import load_image, to_tensor

QUICK = SamplingConfig(num_steps=2)


def noise(mode: str, size: tuple[int, int] = (20, 24), seed: int = 0) -> Image.Image:
    bands = [Image.fromarray(plane) for plane in _planes(len(mode.replace(";16", "")), size, seed)]
    return bands[0] if mode == "L" else Image.merge(mode, bands)


def _planes(count: int, size: tuple[int, int], seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, size[1], size[0]), dtype=np.uint8)


def saved(image: Image.Image, kind: str, profile: bytes | None) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, icc_profile=profile)
    return Image.open(buffer)


def by_profile(image: Image.Image, profile: bytes) -> np.ndarray:
    """What Pillow's own call gives."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    return np.asarray(ImageCms.profileToProfile(image, source, target, outputMode="RGB"))


@pytest.mark.parametrize(
    ("mode", "kind", "profile"),
    [
        ("CMYK", "JPEG", cmyk_profile()),
        ("CMYK", "TIFF", cmyk_profile()),
        ("L", "JPEG", grey_profile(1.0)),
        ("L", "PNG", grey_profile(1.4)),
    ],
)
def test_numbers_that_are_not_rgb_become_srgb_as_their_profile_says(
    tiny_model, mode, kind, profile
):
    photo = saved(noise(mode), kind, profile)
    wanted = by_profile(photo, profile)
    assert not np.array_equal(wanted, np.asarray(photo.convert("RGB")))
    loaded = load_image(photo)
    assert np.array_equal(np.asarray(loaded), wanted)
    assert "icc_profile" not in loaded.info
    mask = tiny.left_half()
    result = tiny_model.inpaint(photo, mask, "sea", QUICK).image
    assert result.mode == "RGB" and "icc_profile" not in result.info
    assert np.array_equal(np.asarray(result)[~mask], wanted[~mask])


def test_grey_with_alpha_follows_its_profile_and_keeps_its_alpha():
    photo = noise("LA")
    photo.info["icc_profile"] = grey_profile(1.0)
    loaded = load_image(photo, keep_alpha=True)
    assert loaded.mode == "RGBA" and "icc_profile" not in loaded.info
    wanted = by_profile(photo.getchannel("L"), grey_profile(1.0))
    assert np.array_equal(np.asarray(loaded)[..., :3], wanted)
    assert np.array_equal(np.asarray(loaded)[..., 3], np.asarray(photo)[..., 1])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_wide_gamut_keeps_its_pixels_and_its_profile(tiny_model, mode):
    photo = saved(noise(mode), "PNG", wide_rgb_profile())
    mask = tiny.left_half()
    result = tiny_model.inpaint(photo, mask, "sea", QUICK).image
    assert result.info["icc_profile"] == wide_rgb_profile()
    assert np.array_equal(np.asarray(result)[~mask], np.asarray(photo)[~mask])
    buffer = io.BytesIO()
    result.save(buffer, "PNG")
    assert Image.open(buffer).info["icc_profile"] == wide_rgb_profile()


def test_the_network_sees_srgb_and_what_it_paints_goes_back(tiny_model):
    # Colours inside both gamuts, so that nothing is clipped on the way.
    values = np.random.default_rng(1).integers(110, 150, (16, 16, 3), dtype=np.uint8)
    plain = Image.fromarray(values)
    source, wide = plain.copy(), ImageCms.ImageCmsProfile(io.BytesIO(wide_rgb_profile()))
    photo = from_srgb(source, wide)
    assert np.abs(np.asarray(photo).astype(int) - values).max() > 5
    photo.info["icc_profile"] = wide_rgb_profile()
    mask = np.zeros((16, 16), bool)
    mask[:8, :8] = True
    plans = [tiny_model.plan_inpaint(image, mask) for image in (plain, photo)]
    difference = (plans[0].blanked - plans[1].blanked).abs().max() * 127.5
    assert difference <= 3.01  # two roundings to 8 bits
    square = to_tensor(Image.new("RGB", (16, 16), (140, 120, 130)))
    from maskgit_core.editing.plan import finish_edit

    made = finish_edit(plans[1], square)
    shown = to_srgb(made, rgb_profile(made))
    expected = finish_edit(plans[0], square)
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(expected)).max() <= 4


def test_profiles_that_do_not_fit_or_make_no_sense_are_dropped():
    for profile in (b"nonsense", cmyk_profile(), grey_profile(2.0), b"\0" * 200):
        photo = noise("RGB")
        photo.info["icc_profile"] = profile
        loaded = load_image(photo)
        assert np.array_equal(np.asarray(loaded), np.asarray(photo))
        assert "icc_profile" not in loaded.info
    for mode, profile in (("L", cmyk_profile()), ("CMYK", b"x")):
        photo = noise(mode)
        photo.info["icc_profile"] = profile
        loaded = load_image(photo)
        assert np.array_equal(np.asarray(loaded), np.asarray(photo.convert("RGB")))
        assert "icc_profile" not in loaded.info


def test_grey_with_a_profile_of_rgb_is_grey_of_that_profile():
    photo = noise("L")
    photo.info["icc_profile"] = wide_rgb_profile()
    loaded = load_image(photo)
    assert np.array_equal(np.asarray(loaded), np.asarray(photo.convert("RGB")))
    assert loaded.info["icc_profile"] == wide_rgb_profile()


def test_lab_is_converted_without_a_profile_too():
    lab = Image.new("LAB", (3, 2), (200, 130, 140))
    assert load_image(lab).mode == "RGB"


def test_srgb_is_no_other_gamut():
    photo = noise("RGB")
    photo.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert rgb_profile(load_image(photo)) is None
    assert load_image(photo).info["icc_profile"] == photo.info["icc_profile"]


def test_an_extended_photo_keeps_its_profile(tiny_model):
    photo = saved(noise("RGB"), "PNG", wide_rgb_profile())
    result = tiny_model.outpaint(photo, "sea", QUICK, right=0.5).image
    assert result.info["icc_profile"] == wide_rgb_profile()
    assert np.array_equal(np.asarray(result)[:, :20], np.asarray(photo))
