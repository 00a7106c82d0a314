"""Photos of any folder, packed once; batches that follow from (seed, step) alone."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from hostile_images import HOSTILE
from maskgit_core import CheckpointError
from maskgit_core.data.decoder import Decoder
from maskgit_core.data.photos import (
    Photos,
    augmented_batch,
    batch_indices,
    centre_batch,
    pack_photos,
    packed_size,
    scan_folder,
    step_generator,
)


def test_classes_are_the_folders_in_alphabetical_order(tmp_path):
    tiny.write_photos(tmp_path, ["sea", "été", "森林", "a b"], count=2)
    folder = scan_folder(tmp_path)
    assert folder.classes == sorted(["sea", "été", "森林", "a b"])
    assert folder.labels == [0, 0, 1, 1, 2, 2, 3, 3]
    for name, label in zip(folder.files, folder.labels, strict=True):
        assert Path(name).parts[0] == folder.classes[label]
        assert (tmp_path / name).is_file()


def test_nested_folders_belong_to_their_class(tmp_path):
    tiny.write_photos(tmp_path, ["sea"], count=1)
    tiny.write_photos(tmp_path / "sea" / "2020", ["june"], count=2)
    folder = scan_folder(tmp_path)
    assert folder.classes == ["sea"] and folder.labels == [0, 0, 0]


def test_only_images_count(tmp_path):
    tiny.write_photos(tmp_path, ["sea"], count=1)
    (tmp_path / "sea" / "notes.txt").write_text("")
    (tmp_path / "sea" / "UPPER.PNG").write_bytes((tmp_path / "sea" / "0.png").read_bytes())
    (tmp_path / "sea" / "folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    tiny.write_photos(tmp_path, [".hidden"], count=1)
    (tmp_path / "loose.png").write_bytes((tmp_path / "sea" / "0.png").read_bytes())
    folder = scan_folder(tmp_path)
    assert folder.classes == ["sea"]
    assert sorted(folder.files) == [str(Path("sea/0.png")), str(Path("sea/UPPER.PNG"))]


def test_a_folder_without_classes(tmp_path):
    with pytest.raises(ValueError, match="directory with one folder per class.*nowhere"):
        scan_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="one folder per class with images inside; found none"):
        scan_folder(tmp_path)
    tiny.picture(0).save(tmp_path / "loose.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="one folder per class with images inside; found none"):
        pack_photos(tmp_path, 16)


def test_photos_of_any_size_and_mode_become_squares(tmp_path):
    (tmp_path / "sea").mkdir()
    for index, mode in enumerate(["RGB", "L", "RGBA", "CMYK", "P", "1"]):
        suffix = "jpg" if mode == "CMYK" else "png"
        tiny.picture(index, (7 + 20 * index, 40), mode).save(tmp_path / "sea" / f"{index}.{suffix}")
    Image.new("RGB", (1, 1), "red").save(tmp_path / "sea" / "9.png")
    photos = pack_photos(tmp_path, 12)
    assert photos.pixels.shape == (7, 12, 12, 3) and photos.pixels.dtype == np.uint8
    assert (photos.pixels[-1] == [255, 0, 0]).all()
    assert photos.labels.tolist() == [0] * 7 and not photos.skipped


def test_the_middle_of_a_photo_is_kept(tmp_path):
    (tmp_path / "sea").mkdir()
    wide = Image.new("RGB", (48, 16), "red")
    wide.paste((0, 0, 255), (16, 0, 32, 16))
    wide.save(tmp_path / "sea" / "wide.png")
    assert (pack_photos(tmp_path, 16).pixels[0] == [0, 0, 255]).all()


def test_an_unreadable_file_is_named_and_left_out(tmp_path, caplog):
    tiny.write_photos(tmp_path, ["land", "sea"], count=2)
    (tmp_path / "land" / "1.png").write_bytes(b"no image")
    whole = (tmp_path / "sea" / "0.png").read_bytes()
    (tmp_path / "sea" / "0.png").write_bytes(whole[: len(whole) // 2])
    wanted = [str(Path("land/1.png")), str(Path("sea/0.png"))]
    for _ in range(2):  # packed now, and read from the cache then
        caplog.clear()
        photos = pack_photos(tmp_path, 16, cache_dir=tmp_path / "cache")
        assert photos.skipped == wanted
        assert photos.labels.tolist() == [0, 1]
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 2
        assert all(name in text for name, text in zip(wanted, warnings, strict=True))


def test_no_readable_file_is_an_error(tmp_path):
    tiny.write_photos(tmp_path, ["sea"], count=2)
    for path in (tmp_path / "sea").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 2 images in .* could be read"):
        pack_photos(tmp_path, 16, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def decoded(monkeypatch) -> list[object]:
    """The photos that are decoded from now on."""
    calls, real = [], Decoder.open

    def open_one(self, content, *arguments, **options):
        calls.append(content)
        return real(self, content, *arguments, **options)

    monkeypatch.setattr(Decoder, "open", open_one)
    return calls


@pytest.mark.parametrize("name", HOSTILE)
def test_one_file_that_is_dear_to_decode_is_left_out_and_named(photo_folder, name):
    hostile = photo_folder / tiny.CLASSES[0] / "hostile.png"
    hostile.write_bytes(HOSTILE[name]())
    photos = pack_photos(photo_folder, 16)
    assert photos.skipped == [hostile.relative_to(photo_folder).as_posix()]
    assert len(photos.labels) == 9


def test_the_cache_is_used_until_a_photo_changes(photo_folder, tmp_path, monkeypatch):
    cache, calls = tmp_path / "cache", decoded(monkeypatch)
    first = pack_photos(photo_folder, 16, cache_dir=cache)
    assert len(calls) == 9
    again = pack_photos(photo_folder, 16, cache_dir=cache)
    assert len(calls) == 9
    assert np.array_equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, again.labels) and first.classes == again.classes
    plain = pack_photos(photo_folder, 16)
    assert np.array_equal(first.pixels, plain.pixels)
    pack_photos(photo_folder, 12, cache_dir=cache)
    assert len(calls) == 27
    tiny.picture(77).save(photo_folder / "sea" / "new.png")
    assert len(pack_photos(photo_folder, 16, cache_dir=cache).labels) == 10
    assert len(calls) == 37
    (photo_folder / "sea" / "new.png").unlink()
    assert len(pack_photos(photo_folder, 16, cache_dir=cache).labels) == 9
    assert len(calls) == 37


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "nonsense"])
def test_a_damaged_cache_is_made_again(photo_folder, tmp_path, suffix, damage):
    cache = tmp_path / "cache"
    first = pack_photos(photo_folder, 16, cache_dir=cache)
    expected = np.array(first.pixels)
    path = next(cache.glob(f"*{suffix}"))
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        damaged = {"empty": b"", "cut": whole[: len(whole) * 2 // 3], "nonsense": b"{}"}
        path.unlink()  # not written over: the first array is still mapped
        path.write_bytes(damaged[damage])
    again = pack_photos(photo_folder, 16, cache_dir=cache)
    assert np.array_equal(again.pixels, expected)
    assert json.loads(next(cache.glob("*.json")).read_text())["labels"] == first.labels.tolist()


def test_a_full_disk_leaves_no_half_cache(photo_folder, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", fail)
    with pytest.raises(CheckpointError, match="No space left on device"):
        pack_photos(photo_folder, 16, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_progress_sees_every_file(photo_folder):
    seen = []
    pack_photos(photo_folder, 16, progress=lambda files: seen.extend(files) or files)
    assert len(seen) == 9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5))
def test_each_item_comes_once_an_epoch(num_items, batch_size, seed):
    steps = -(-3 * num_items // batch_size)
    stream = torch.cat([batch_indices(num_items, batch_size, seed, s) for s in range(steps)])
    assert stream.dtype == torch.int64
    epochs = stream[: 3 * num_items].view(3, num_items)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(num_items).expand(3, -1))


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = batch_indices(50, 50, 0, 0), batch_indices(50, 50, 0, 1)
    assert not torch.equal(first, second)
    assert not torch.equal(first, batch_indices(50, 50, 1, 0))
    assert not torch.equal(first, torch.arange(50))
    assert torch.equal(first, batch_indices(50, 50, 0, 0))


def test_a_step_has_random_numbers_of_its_own():
    def draw(*key: int) -> list[float]:
        return torch.rand(4, generator=step_generator(*key)).tolist()

    assert draw(1, 2) == draw(1, 2)
    keys = [(1, 2, 0), (1, 2, 1), (1, 3, 0), (2, 2, 0), (12, 0, 0), (2**63 - 1, 0, 0)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_a_batch_depends_on_its_generator_only():
    photos, indices = tiny.photos(6), torch.tensor([5, 0, 0, 3])
    first, again = (augmented_batch(photos, indices, 16, step_generator(0, 7)) for _ in range(2))
    assert first.shape == (4, 3, 16, 16) and first.dtype == torch.float32
    assert -1 <= first.min() and first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, augmented_batch(photos, indices, 16, step_generator(0, 8)))


def test_crops_and_mirror_images_all_occur():
    side = packed_size(48)
    assert side == 50
    pixels = np.arange(side * side * 3, dtype=np.int64).reshape(1, side, side, 3) % 251
    photos = Photos(pixels.astype(np.uint8), torch.tensor([0]), ["a"], [])
    indices = torch.zeros(400, dtype=torch.int64)
    batch = augmented_batch(photos, indices, 48, step_generator(0, 0))
    found = {crop.numpy().tobytes() for crop in batch}
    views = set()
    for top in range(3):
        for left in range(3):
            crop = pixels[0, top : top + 48, left : left + 48].astype(np.uint8)
            for view in (crop, crop[:, ::-1]):
                tensor = torch.from_numpy(view.copy()).permute(2, 0, 1).float() / 127.5 - 1
                views.add(tensor.contiguous().numpy().tobytes())
    assert len(views) == 18
    assert found == views


def test_the_centre_crop_is_in_the_centre():
    pixels = np.zeros((1, 18, 18, 3), dtype=np.uint8)
    pixels[0, 1:17, 1:17] = 255
    photos = Photos(pixels, torch.tensor([0]), ["a"], [])
    assert torch.equal(centre_batch(photos, torch.tensor([0]), 16), torch.ones(1, 3, 16, 16))
