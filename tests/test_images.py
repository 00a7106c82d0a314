import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskgit_core.data import images
from maskgit_core.data.images import centre_square, crop_to_square, load_image, to_image, to_tensor


def noise(width, height, channels=3, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return values[..., 0] if channels == 1 else values


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_pixels_go_to_a_tensor_and_back_unchanged(width, height, seed):
    pixels = noise(width, height, seed=seed)
    tensor = to_tensor(Image.fromarray(pixels))
    assert tensor.dtype == torch.float32 and tensor.shape == (1, 3, height, width)
    assert np.array_equal(np.asarray(to_image(tensor)), pixels)


def test_every_level_of_every_channel_is_exact_and_the_range_is_full():
    levels = np.arange(256, dtype=np.uint8)
    pixels = np.stack([levels, levels[::-1], np.roll(levels, 7)], -1)[None]
    tensor = to_tensor(Image.fromarray(pixels))
    assert tensor[0, 0, 0, 0] == -1 and tensor[0, 0, 0, 255] == 1
    assert np.array_equal(np.asarray(to_image(tensor)), pixels)


def test_values_outside_the_range_are_clipped():
    tensor = torch.tensor([-3.0, 3.0]).expand(3, 1, 2)
    assert np.asarray(to_image(tensor)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("pixels", "named"),
    [(torch.zeros(2, 3, 4, 4), "pixels"), (torch.full((3, 2, 2), torch.nan), "pixels")],
)
def test_tensors_that_are_no_image_are_refused(pixels, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        to_image(pixels)


def test_a_path_bytes_and_an_image_give_the_same_pixels(tmp_path):
    pixels = noise(5, 4)
    image = Image.fromarray(pixels)
    path = tmp_path / "photo.png"
    image.save(path)
    for source in (path, str(path), path.read_bytes(), image):
        loaded = load_image(source)
        assert loaded.mode == "RGB" and np.array_equal(np.asarray(loaded), pixels)


def test_the_callers_image_is_not_changed_and_not_returned():
    image = Image.fromarray(noise(3, 3))
    loaded = load_image(image)
    loaded.paste((1, 2, 3), (0, 0, 3, 3))
    assert np.array_equal(np.asarray(image), noise(3, 3))


def test_grey_and_palette_photos_keep_their_colours():
    grey = Image.fromarray(noise(6, 5, 1))
    assert np.array_equal(np.asarray(load_image(grey)), np.asarray(grey)[..., None].repeat(3, 2))
    palette = Image.fromarray(noise(6, 5)).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(np.asarray(load_image(encoded(palette))), expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize("from_file", [False, True])
def test_sixteen_bit_grey_is_scaled_to_eight_bit(dtype, from_file):
    values = np.array([[0, 128, 129, 257, 32768, 65535]])
    image = Image.fromarray(values.astype(dtype))
    source = encoded(image, "TIFF") if from_file else image
    grey = np.asarray(load_image(source))[0, :, 0]
    assert grey.tolist() == [0, 0, 1, 1, 128, 255]


def test_a_dark_sixteen_bit_png_stays_dark():
    image = Image.fromarray(np.full((2, 2), 200, np.uint16))
    assert np.asarray(load_image(encoded(image))).max() == 1


def test_cmyk_photos_become_rgb():
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    loaded = load_image(encoded(image, "TIFF"))
    assert loaded.mode == "RGB" and loaded.getpixel((0, 0)) == (255, 0, 0)


def test_transparency_is_laid_over_white_or_kept():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (10, 20, 30, 255))
    flat = load_image(encoded(image))
    assert flat.getpixel((0, 0)) == (255, 255, 255) and flat.getpixel((1, 0)) == (10, 20, 30)
    assert np.array_equal(load_image(image, keep_alpha=True), image)
    grey = Image.new("LA", (1, 1), (40, 128))
    assert load_image(grey, keep_alpha=True).getpixel((0, 0)) == (40, 40, 40, 128)


def test_the_exif_orientation_is_applied():
    pixels = noise(4, 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = load_image(encoded(Image.fromarray(pixels), exif=exif))
    assert np.array_equal(np.asarray(loaded), np.rot90(pixels, -1))
    assert not loaded.getexif().get(0x0112)


def test_a_photo_of_one_pixel_works():
    assert load_image(encoded(Image.new("L", (1, 1), 9))).getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_short_is_refused(kind):
    whole = encoded(Image.fromarray(noise(64, 64)), kind)
    assert load_image(whole).size == (64, 64)
    with pytest.raises(ValueError, match="^image "):
        load_image(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    "source", [b"", b"no image at all", b"%!PS-Adobe-3.0 EPSF-3.0\n", 3, None], ids=str
)
def test_what_is_no_image_is_refused(source):
    with pytest.raises(ValueError, match="^image (is no photo|must be)"):
        load_image(source)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="missing.png cannot be opened"):
        load_image(tmp_path / "missing.png")


def test_fifty_megapixels_are_refused_before_they_are_decoded(monkeypatch):
    data = encoded(Image.new("1", (10_000, 5_000)))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"10000 x 5000 pixels is 50.0 megapixels, at most 40"):
        load_image(data)


def test_a_photo_at_the_limit_is_taken(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 12)
    assert load_image(Image.new("RGB", (4, 3))).size == (4, 3)
    with pytest.raises(ValueError, match="too large"):
        load_image(Image.new("RGB", (13, 1)))


def test_the_square_in_the_middle():
    assert centre_square((10, 4)) == (3, 0, 7, 4)
    assert centre_square((3, 8)) == (0, 2, 3, 5)


def test_cropping_at_the_models_size_takes_the_pixels_themselves():
    pixels = noise(9, 5)
    image = Image.fromarray(pixels)
    assert np.array_equal(np.asarray(crop_to_square(image, 5)), pixels[:, 2:7])
    assert np.array_equal(np.asarray(crop_to_square(image, 3, (1, 2, 4, 5))), pixels[2:5, 1:4])
    assert crop_to_square(image, 16).size == (16, 16)


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(crop_to_square(Image.fromarray(stripes), 8)).astype(int)
    assert abs(small[2:-2, 2:-2] - 127).max() < 10
