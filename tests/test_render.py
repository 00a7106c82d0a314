"""Pictures of steps: what is drawn, what is hidden, and that nothing is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.runs import exports, frames, render
from maskgit_core.data.image_files import recipe_of

RANDOM = np.random.default_rng(0)


def noise(count: int, side: int = 24) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_range_of_images_is_minus_one_to_one() -> None:
    values = np.array([-1.0, 0.0, 1.0, -2.0, 2.0], dtype=np.float32)
    images = np.broadcast_to(values[None, None, None], (1, 3, 1, 5))
    assert render.to_uint8(images)[0, 0, :, 0].tolist() == [0, 128, 255, 0, 255]


def test_masked_cells_show_nothing_of_the_image() -> None:
    masked = RANDOM.random((2, 3, 3)) < 0.5
    first, second = noise(2), noise(2)
    hidden = render.upsample_cells(masked, 24, 24)
    for draw in (render.hide_cells, render.draw_pattern):
        a, b = draw(first, masked), draw(second, masked)
        assert (a[hidden] == b[hidden]).all()
        assert (a[~hidden] == first[~hidden]).all()


def test_outlines_stay_inside_their_cells() -> None:
    cells = np.zeros((1, 3, 3), dtype=bool)
    cells[0, 1, 1] = True
    images = noise(1)
    drawn = render.draw_outlines(images, cells)
    changed = (drawn != images).any(-1)[0]
    assert changed[8:16, 8:16].sum() == 8 * 8 - 6 * 6
    assert changed.sum() == changed[8:16, 8:16].sum()


def test_cells_must_divide_the_image() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        render.upsample_cells(np.zeros((1, 5, 5), dtype=bool), 24, 24)


@settings(deadline=None)
@given(count=st.integers(1, 16), columns=st.integers(1, 6))
def test_sheet_can_be_taken_apart_again(count: int, columns: int) -> None:
    images = noise(count, 4)
    sheet = render.contact_sheet(images, columns)
    assert (render.split_sheet(sheet, count, columns) == images).all()


def test_lossless_data_url_keeps_every_pixel() -> None:
    image = Image.fromarray(noise(1)[0])
    back = render.open_data_url(render.data_url(image, lossless=True))
    assert (np.asarray(back) == np.asarray(image)).all()


@settings(max_examples=20, deadline=None)
@given(levels=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_every_code_has_a_colour_of_its_own(levels: list[int]) -> None:
    patches = np.array(levels, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    colours = render.token_colours(patches)
    assert len({tuple(colour) for colour in colours.tolist()}) == len(levels)


def test_colour_is_that_of_the_patch() -> None:
    patches = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    patches[1, :, :2] = 200
    assert render.token_colours(patches).tolist() == [[0, 0, 0], [100, 100, 100]]


def test_atlas_holds_each_patch_in_its_place() -> None:
    patches = noise(7, 8)
    atlas = np.asarray(render.patch_atlas(patches, 8))
    assert atlas.shape == (24, 24, 3)
    assert (atlas[8:16, 16:24] == patches[5]).all()
    assert render.patch_atlas(noise(7, 16), 8).size == (24, 24)


def small_run(steps: int = 3, count: int = 2, base: bool = False) -> dict:
    """A run on 3 x 3 cells that decides three cells of every image in each step."""
    known = None
    if base:
        known = np.full((3, 3), 9)
        known[0] = [1, 2, 3]
        steps = 2
    head = frames.run_head(
        run="a",
        kind="generate",
        model_name="m",
        grid=(3, 3),
        captions=["x"] * count,
        plan=[1 - i / steps for i in range(steps + 1)],
        mask_token_id=9,
        known=known,
        base=render.data_url(Image.new("RGB", (24, 24), (10, 200, 10))) if base else None,
        recipe={"seed": 4, "classes": ["sea"]},
    )
    run = frames.new_run(head)
    tokens = np.full((count, 3, 3), 9)
    if base:
        tokens[:, 0] = [1, 2, 3]
    for row in range(3 - steps, 3):
        new = np.zeros((count, 3, 3), dtype=bool)
        new[:, row] = True
        tokens = np.where(new, row, tokens)
        confidence = np.where(new, np.log(0.25), np.nan).astype(np.float32)
        ids = np.tile(np.arange(6), (count, 3, 3, 1))
        shares = np.tile(np.linspace(0.5, 0.0, 6), (count, 3, 3, 1))
        images = np.full((count, 3, 24, 24), 0.5, dtype=np.float32)
        frame = frames.step_frame(tokens, new, confidence, images, 9, (ids, shares))
        run = frames.grown(run, {"frame": frame})
    return run


def test_frames_say_what_each_step_adds() -> None:
    run = small_run()
    assert [len(frame["cells"]) for frame in run["frames"]] == [6, 6, 6]
    assert run["frames"][1]["cells"] == [3, 4, 5, 12, 13, 14]
    assert run["frames"][1]["ids"] == [1] * 6
    assert run["frames"][1]["sure"] == [250] * 6
    assert run["frames"][1]["alternatives"][:5] == [0, 1, 2, 3, 4]
    assert run["frames"][1]["shares"][:5] == [500, 400, 300, 200, 100]


def test_adding_a_frame_leaves_the_old_run_alone() -> None:
    run = small_run()
    longer = frames.grown(run, {"frame": run["frames"][0]})
    assert len(run["frames"]) == 3 and len(longer["frames"]) == 4


def test_masked_cells_shrink_step_by_step() -> None:
    run = small_run()
    left = [int(frames.masked_after(run, step).sum()) for step in range(4)]
    assert left == [18, 12, 6, 0]
    edit = small_run(base=True)
    assert [int(frames.masked_after(edit, step).sum()) for step in range(3)] == [12, 6, 0]


def test_exports_of_an_edit_show_the_photo_around_it() -> None:
    picture = exports.step_images(small_run(base=True), 1)
    assert abs(picture[0, 3, 3].astype(int) - [10, 200, 10]).max() < 12
    assert abs(picture[0, 11, 11].astype(int) - 191).max() < 12
    assert picture[0, 17, 1].tolist() == list(render.HOLE)


def test_film_strip_has_a_column_for_every_step() -> None:
    strip = exports.film_strip(small_run())
    assert strip.size == (4 * 28 - 4, 2 * 28 - 4)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_animation_has_every_step_and_its_speed(tmp_path, kind: str) -> None:
    pictures = exports.animation_frames(small_run(), grid_lines=True)
    path = tmp_path / f"movie.{kind}"
    recipe = {"task": "generate", "classes": ["sea", "été"], "seed": 3}
    exports.write_animation(path, pictures, kind=kind, seconds_per_step=0.3, recipe=recipe)
    assert recipe_of(Image.open(path)) == recipe
    with Image.open(path) as movie:
        assert movie.n_frames >= 4
        durations = []
        for index in range(movie.n_frames):
            movie.seek(index)
            movie.load()
            durations.append(movie.info["duration"])
    assert durations[0] == 300
    assert sum(durations) == 300 * len(pictures) + 2000


def test_grid_lines_can_be_left_out() -> None:
    run = small_run()
    with_lines = exports.animation_frames(run, grid_lines=True)
    without = exports.animation_frames(run, grid_lines=False)
    assert np.asarray(with_lines[1]).tolist() != np.asarray(without[1]).tolist()
    assert np.asarray(with_lines[0]).tolist() == np.asarray(without[0]).tolist()
