"""The commands that edit photos: frames, boxes, folders, formats, recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from commands import assert_refused, run
from icc import wide_rgb_profile
from maskgit_core.data.image_files import recipe_of
from maskgit_core.data.kinds import readable_formats

SIZE = (40, 30)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a photo and its mask."""
    tiny.picture(1, SIZE).save(tmp_path / "photo.png")
    mask().save(tmp_path / "mask.png")
    return tmp_path


def mask(size: tuple[int, int] = SIZE) -> Image.Image:
    drawn = Image.new("L", size, 0)
    drawn.paste(255, (5, 8, 15, 18))
    return drawn


def inpaint(checkpoint: Path, place: Path, *more: object) -> list[object]:
    """Words of the command; later ones win."""
    words = ["inpaint", "--checkpoint", checkpoint, "--num-steps", 2, "--label", "sea"]
    words += ["--image", place / "photo.png", "--mask", place / "mask.png"]
    return [*words, "--out", place / "out.png", *more]


def assert_kept(before: Image.Image, after: Image.Image, drawn: Image.Image) -> None:
    kept = np.asarray(drawn.convert("L")) < 128
    first, second = np.asarray(before), np.asarray(after)
    assert first.shape == second.shape
    assert np.array_equal(first[kept], second[kept])
    assert not np.array_equal(first[~kept], second[~kept])


# ---- formats and recipes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "PNG"),
        ("a.PNG", "PNG"),
        ("a.jpg", "JPEG"),
        ("a.JPEG", "JPEG"),
        ("a.webp", "WEBP"),
        ("a.tif", "TIFF"),
        ("a.tiff", "TIFF"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_ending_decides_the_format(tiny_checkpoint, place, name, kind, mode):
    photo = tiny.picture(1, SIZE).convert(mode)
    photo.putalpha(200) if mode == "RGBA" else None
    photo.save(place / "photo.png")
    assert run(*inpaint(tiny_checkpoint, place, "--out", place / name)) == 0
    made = Image.open(place / name)
    assert made.format == kind
    if kind != "JPEG":
        assert_kept(photo, made, mask())
    assert recipe_of(made)["task"] == "inpaint"
    assert (
        run("sample", "--checkpoint", tiny_checkpoint, "--num-steps", 1, "--out", place / name) == 0
    )
    assert Image.open(place / name).format == kind


@pytest.mark.parametrize("name", ["a", "a.gif", "a.png.bak", "a.jpgg", ".png", "a.bmp", "a.avif"])
def test_an_unknown_ending_is_refused_before_anything_is_computed(
    capsys, tiny_checkpoint, place, name, monkeypatch
):
    monkeypatch.setattr("maskgit_core.pipeline.MaskGIT.from_pretrained", lambda *_, **__: 1 / 0)
    says = "out must end in one of .png"
    assert_refused(capsys, *inpaint(tiny_checkpoint, place, "--out", place / name), says=says)
    assert_refused(capsys, "sample", "--out", place / name, says=says)
    outpaint = ["outpaint", "--image", place / "photo.png", "--left", 0.5]
    assert_refused(capsys, *outpaint, "--out", place / name, says=says)
    assert not (place / name).exists()


def test_a_recipe_makes_the_same_files_again(tiny_checkpoint, place):
    options = ["--checkpoint", tiny_checkpoint, "--labels", "sea", 0, "sea", "none", "--seed", 7]
    options += ["--num-steps", 3, "--order", "raster", "--temperature", 0.5]
    assert run("sample", *options, "--out", place / "a.png") == 0
    recipe = recipe_of(Image.open(place / "a.png"))
    assert recipe["model"] == Path(tiny_checkpoint).name and recipe["task"] == "generate"
    again = ["--checkpoint", tiny_checkpoint, "--labels", *recipe["classes"]]
    for name in ("seed", "num_steps", "order", "temperature", "guidance_scale", "schedule"):
        again += [f"--{name.replace('_', '-')}", recipe[name]]
    assert run("sample", *again, "--out", place / "b.png") == 0
    assert (place / "a.png").read_bytes() == (place / "b.png").read_bytes()

    assert run(*inpaint(tiny_checkpoint, place, "--seed", 3)) == 0
    recipe = recipe_of(Image.open(place / "out.png"))
    assert recipe["class"] == "sea" and recipe["seed"] == 3 and len(recipe["box"]) == 4
    box = [str(edge) for edge in recipe["box"]]
    assert (
        run(*inpaint(tiny_checkpoint, place, "--seed", 3, "--out", place / "c.png", "--box", *box))
        == 0
    )
    assert (place / "out.png").read_bytes() == (place / "c.png").read_bytes()


# ---- what is given -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [SIZE, (24, 24)])
def test_the_frame_of_a_photo_with_an_orientation(tiny_checkpoint, place, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    tiny.picture(1, size).save(place / "photo.png", exif=exif)
    upright_size = size[::-1] if orientation > 4 else size
    mask(upright_size).save(place / "mask.png")
    assert run(*inpaint(tiny_checkpoint, place)) == 0
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(Image.open(place / "photo.png"))
    made = Image.open(place / "out.png")
    assert made.getexif().get(0x0112, 1) == 1
    assert_kept(upright, made, mask(upright_size))
    if upright_size != size:
        # A mask of the size that the file says, as a program that does not turn photos sees it.
        mask(size).save(place / "mask.png")
        assert run(*inpaint(tiny_checkpoint, place)) == 0
        made = Image.open(place / "out.png")
        assert made.getexif()[0x0112] == orientation
        assert_kept(Image.open(place / "photo.png"), made, mask(size))


def test_a_wide_gamut_goes_through(tiny_checkpoint, place):
    tiny.picture(1, SIZE).save(place / "photo.png", icc_profile=wide_rgb_profile())
    for name in ("a.png", "a.webp", "a.tif", "a.jpg"):
        assert run(*inpaint(tiny_checkpoint, place, "--out", place / name)) == 0
        made = Image.open(place / name)
        assert made.info["icc_profile"] == wide_rgb_profile()
        if name != "a.jpg":
            assert_kept(Image.open(place / "photo.png"), made, mask())


@pytest.mark.parametrize("mode", ["1", "P", "LA", "I;16", "I", "F"])
def test_a_mask_of_any_mode(tiny_checkpoint, place, mode):
    wide = np.asarray(mask()).astype(np.int64) * 257
    drawn = {
        "I;16": lambda: Image.fromarray(wide.astype(np.uint16)),
        "I": lambda: Image.fromarray(wide.astype(np.int32)),
        "F": lambda: Image.fromarray((wide / 65535 * 1.00001).astype(np.float32)),
    }.get(mode, lambda: mask().convert(mode))()
    name = "mask.tif" if mode == "F" else "mask.png"
    drawn.save(place / name)
    assert run(*inpaint(tiny_checkpoint, place, "--mask", place / name)) == 0
    assert_kept(Image.open(place / "photo.png"), Image.open(place / "out.png"), mask())


def test_a_box_is_used_and_checked(capsys, tiny_checkpoint, place):
    made = set()
    for box in ([0, 3, 20, 23], [2, 2, 22, 22], None):
        words = inpaint(tiny_checkpoint, place, *(["--box", *box] if box else []))
        assert run(*words) == 0
        made.add((place / "out.png").read_bytes())
        assert_kept(Image.open(place / "photo.png"), Image.open(place / "out.png"), mask())
    assert len(made) == 3
    words = inpaint(tiny_checkpoint, place, "--box", 0, 0, 9, 9)
    assert run(*words) == 2
    assert "box must hold the painted area" in capsys.readouterr().err
    assert_refused(capsys, *words[:-2], says="expected 4 arguments")


def test_class_numbers_as_text(tiny_checkpoint, place):
    made = []
    for label in ("sea", "1", "SEA"):
        assert run(*inpaint(tiny_checkpoint, place, "--label", label)) == 0
        made.append((place / "out.png").read_bytes())
    assert len(set(made)) == 1


# ---- folders -------------------------------------------------------------------------------------


def folder_of(place: Path, names: dict[str, tuple[int, int]]) -> Path:
    folder = place / "photos"
    folder.mkdir()
    for index, (name, size) in enumerate(names.items()):
        tiny.picture(index, size).save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.png").write_bytes(b"no photo")
    return folder


def test_a_folder_of_photos_with_one_mask(capsys, tiny_checkpoint, place):
    photos = folder_of(place, {"a.png": SIZE, "b.tif": SIZE, "c.png": SIZE})
    words = ["--image", photos, "--out", place / "made"]
    assert run(*inpaint(tiny_checkpoint, place, *words)) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(place / "made" / f"{name}.png") for name in "abc"
    ]
    assert sorted(path.name for path in (place / "made").iterdir()) == ["a.png", "b.png", "c.png"]
    for photo in ("a.png", "b.tif", "c.png"):
        made = place / "made" / f"{Path(photo).stem}.png"
        assert_kept(Image.open(photos / photo), Image.open(made), mask())
        # Each is as it would be alone.
        alone = ["--image", photos / photo, "--out", place / "alone.png"]
        assert run(*inpaint(tiny_checkpoint, place, *alone)) == 0
        assert made.read_bytes() == (place / "alone.png").read_bytes()


def test_a_folder_of_photos_with_a_mask_each(capsys, tiny_checkpoint, place):
    sizes = {"a.png": (20, 30), "b.png": (41, 22), "b.tif": (30, 30)}
    photos = folder_of(place, sizes)
    masks = place / "masks"
    masks.mkdir()
    for name, size in sizes.items():
        drawn = Image.new("L", size, 0)
        drawn.paste(255, (0, 0, size[0] // 2, 9))
        drawn.save(masks / name)
    words = inpaint(
        tiny_checkpoint, place, "--image", photos, "--mask", masks, "--out", place / "o"
    )
    assert run(*words) == 0
    made = {"a.png": "a.png", "b.png": "b.png.png", "b.tif": "b.tif.png"}
    for name, out in made.items():
        assert_kept(
            Image.open(photos / name), Image.open(place / "o" / out), Image.open(masks / name)
        )
    capsys.readouterr()
    (masks / "a.png").unlink()
    assert_refused(capsys, *words, says="holds none for a.png")
    mask((20, 30)).convert("1").save(masks / "a.bmp")
    assert run(*words) == 0


def test_a_photo_of_a_folder_that_fails_is_named_and_the_others_are_made(
    capsys, tiny_checkpoint, place
):
    photos = folder_of(place, {"a.png": SIZE, "b.png": (8, 9), "d.png": SIZE})
    (photos / "c.png").write_bytes(b"no image")
    assert run(*inpaint(tiny_checkpoint, place, "--image", photos, "--out", place / "made")) == 2
    lines = [line.split("\r")[-1] for line in capsys.readouterr().err.splitlines()]
    assert any(line.startswith("b.png: pixel_mask must be as large") for line in lines)
    assert any(line.startswith("c.png: image is no photo") for line in lines)
    assert lines[-1].endswith("2 of 4 photos could not be edited: b.png, c.png")
    assert sorted(path.name for path in (place / "made").iterdir()) == ["a.png", "d.png"]


def test_folders_that_make_no_sense_are_refused(capsys, tiny_checkpoint, place):
    photos = folder_of(place, {"a.png": SIZE})

    def refused(*more: object, says: str) -> None:
        assert_refused(capsys, *inpaint(tiny_checkpoint, place, *more), says=says)

    refused("--image", photos, "--out", photos, says="another folder")
    refused(
        "--image", photos, "--out", place / "photos" / "..", "--mask", place, says="another folder"
    )
    refused("--image", photos, "--out", place / "x.png", says="out must be a folder")
    refused("--mask", photos, says="mask must be a file")
    (place / "empty").mkdir()
    refused("--image", place / "empty", "--out", place / "o", says="holds none")
    refused("--image", photos, "--seed", -1, "--out", place / "o", says="seed must be")
    assert not (place / "o").exists()


# ---- outpaint ------------------------------------------------------------------------------------


def test_outpaint(capsys, tiny_checkpoint, place):
    words = ["outpaint", "--checkpoint", tiny_checkpoint, "--image", place / "photo.png"]
    words += ["--num-steps", 2, "--label", "1", "--out", place / "wide.png"]
    assert run(*words, "--right", 0.5, "--up", 0.25) == 0
    made, photo = Image.open(place / "wide.png"), Image.open(place / "photo.png")
    added = made.height - photo.height
    assert made.width == 60 and added in (7, 8)
    assert np.array_equal(np.asarray(made)[added:, :40], np.asarray(photo))
    recipe = recipe_of(made)
    assert (recipe["task"], recipe["class"]) == ("outpaint", "sea")
    assert (recipe["right"], recipe["up"], recipe["left"]) == (0.5, 0.25, 0.0)
    capsys.readouterr()
    for more, says in (
        ([], "must be above 0"),
        (["--left", 1.5], "left must be a number between"),
        (["--left", "nan"], "left must be a number between"),
        (["--left", 1, "--label", "rose"], "label must be one of"),
    ):
        assert run(*words, *more) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
    photos = folder_of(place, {"a.png": SIZE, "b.png": (16, 16)})
    assert run(*words, "--image", photos, "--out", place / "made", "--down", 1) == 0
    assert Image.open(place / "made" / "b.png").size == (16, 32)


# ---- kinds of files ------------------------------------------------------------------------------

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


@pytest.mark.skipif("AVIF" not in readable_formats(), reason="this Pillow has no AVIF")
def test_avif_is_opened(tiny_checkpoint, place):
    tiny.picture(1, SIZE).save(place / "photo.avif")
    words = inpaint(tiny_checkpoint, place, "--image", place / "photo.avif")
    assert run(*words) == 0
    assert_kept(Image.open(place / "photo.avif"), Image.open(place / "out.png"), mask())


@pytest.mark.skipif("HEIF" in readable_formats(), reason="pillow-heif is installed")
def test_a_kind_that_cannot_be_read_is_named(capsys, tiny_checkpoint, place):
    (place / "photo.heic").write_bytes(HEIC)
    words = inpaint(tiny_checkpoint, place, "--image", place / "photo.heic")
    assert run(*words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "HEIF: photos of this kind cannot be read here; export it as JPEG" in said


@pytest.mark.skipif("HEIF" not in readable_formats(), reason="pillow-heif is not installed")
def test_heic_is_opened_where_its_package_is_installed(tiny_checkpoint, place):
    tiny.picture(1, SIZE).save(place / "photo.heic", format="HEIF")
    assert run(*inpaint(tiny_checkpoint, place, "--image", place / "photo.heic")) == 0
    assert_kept(Image.open(place / "photo.heic"), Image.open(place / "out.png"), mask())


def test_training_opens_avif_and_names_what_it_leaves_out(photo_folder, tmp_path, caplog):
    from maskgit_core.data.photos import pack_photos, scan_folder

    (photo_folder / "sea" / "from-a-phone.HEIC").write_bytes(HEIC)
    if "AVIF" in readable_formats():
        tiny.picture(9).save(photo_folder / "sea" / "new.avif")
        assert "sea/new.avif" in [Path(f).as_posix() for f in scan_folder(photo_folder).files]
    for _ in range(2):  # packed now, and read from the cache then
        caplog.clear()
        photos = pack_photos(photo_folder, 16, cache_dir=tmp_path / "cache")
        assert [Path(name).name for name in photos.skipped] == ["from-a-phone.HEIC"]
        (said,) = [r.getMessage() for r in caplog.records if "HEIC" in r.getMessage()]
        assert "cannot be read" in said
