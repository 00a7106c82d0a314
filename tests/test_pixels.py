"""Pixels of files to numbers of networks and back, their difference, and contact sheets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskgit_core.data.contact_sheet import contact_sheet
from maskgit_core.pixels import from_uint8, psnr, to_uint8


def test_every_level_survives_the_way_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    images = from_uint8(levels)
    assert images.shape == (1, 3, 16, 16) and images.dtype == torch.float32
    assert images.min() == -1 and images.max() == 1
    assert np.array_equal(to_uint8(images).numpy(), levels)
    assert np.array_equal(to_uint8(images[0].numpy()).numpy(), levels[0])


def test_values_are_rounded_to_the_nearest_level_and_clipped() -> None:
    values = torch.tensor([-9.0, -1.0, -0.002, 0.002, 1.0, 9.0]).view(1, 1, 6).expand(3, 1, 6)
    assert to_uint8(values)[0, :, 0].tolist() == [0, 0, 127, 128, 255, 255]


def test_pixels_that_cannot_be_written_to_are_left_alone() -> None:
    levels = np.full((2, 2, 3), 7, dtype=np.uint8)
    levels.flags.writeable = False
    assert torch.equal(from_uint8(levels), from_uint8(levels.copy()))
    assert torch.equal(from_uint8(levels[:, ::-1]), from_uint8(levels.copy()).flip(-1))


def test_psnr_is_in_decibels_of_the_full_range() -> None:
    black = torch.full((2, 3, 4, 4), -1.0)
    grey = black.clone()
    grey[1] += 0.2  # a tenth of the range
    assert psnr(grey, black).tolist() == pytest.approx([100.0, 20.0], abs=1e-4)
    # What lies outside the range is not seen.
    assert psnr(torch.full_like(black, -9.0), black)[0].item() == pytest.approx(100.0, abs=1e-3)


@pytest.mark.parametrize(("columns", "size"), [(2, (10, 10)), (9, (16, 4)), (0, (4, 16))])
def test_a_sheet_has_its_pictures_in_rows(columns: int, size: tuple[int, int]) -> None:
    colours = torch.tensor([[200, 0, 0], [0, 200, 0], [0, 0, 200]], dtype=torch.uint8)
    images = colours[:, None, None].expand(3, 4, 4, 3)
    sheet = contact_sheet(images, columns, gap=2, background=(1, 2, 3))
    assert sheet.size == size
    width = size[0]
    for index, colour in enumerate(colours.tolist()):
        row, column = divmod(index, max(1, (width + 2) // 6))
        assert sheet.getpixel((6 * column + 3, 6 * row + 3)) == tuple(colour)
    if columns == 2:
        assert sheet.getpixel((9, 9)) == sheet.getpixel((4, 0)) == (1, 2, 3)
