import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskgit_core.data.images import to_image, to_tensor
from maskgit_core.editing.blend import extrapolate, fill_hidden
from maskgit_core.editing.plan import (
    as_pixel_mask,
    composite,
    finish_edit,
    plan_edit,
    plan_outpaint,
    token_mask_from_pixels,
)

SIZE = 32
GRID = 8


def noise(width, height, mode="RGB", seed=0):
    bands = Image.new(mode, (1, 1)).getbands()
    generator = np.random.default_rng(seed)
    planes = [generator.integers(0, 256, (height, width), np.uint8) for _ in bands]
    return Image.merge(mode, [Image.fromarray(plane) for plane in planes])


def generated(seed=0, size=SIZE):
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@st.composite
def painted_photos(draw, modes=("RGB", "RGBA", "L", "LA", "CMYK")):
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    photo = noise(width, height, draw(st.sampled_from(modes)), draw(st.integers(0, 99)))
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[
            top : draw(st.integers(top + 1, height)), left : draw(st.integers(left + 1, width))
        ] = 1
    return photo, mask


def reference_form(photo):
    """The photo as its kept pixels must come back: RGB, with alpha where it has one."""
    return np.asarray(photo.convert("RGBA" if photo.mode in ("RGBA", "LA") else "RGB"))


@settings(deadline=None)
@given(painted_photos())
def test_kept_pixels_are_bit_identical_at_the_photos_own_size(case):
    photo, mask = case
    before = photo.tobytes()
    result = finish_edit(plan_edit(photo, mask, SIZE, GRID), generated())
    expected = reference_form(photo)
    found = np.asarray(result)
    assert found.shape == expected.shape
    assert np.array_equal(found[~mask], expected[~mask])
    assert photo.tobytes() == before


@settings(deadline=None)
@given(painted_photos(), st.integers(100, 200))
def test_painted_pixels_have_no_influence_on_anything(case, seed):
    photo, mask = case
    other = Image.composite(
        noise(*photo.size, photo.mode, seed), photo, Image.fromarray((mask * 255).astype(np.uint8))
    )
    plans = [plan_edit(image, mask, SIZE, GRID) for image in (photo, other)]
    assert plans[0].box == plans[1].box
    assert torch.equal(plans[0].token_mask, plans[1].token_mask)
    assert torch.equal(plans[0].blanked, plans[1].blanked)
    results = [finish_edit(plan, generated()) for plan in plans]
    assert np.array_equal(np.asarray(results[0]), np.asarray(results[1]))


@settings(deadline=None)
@given(painted_photos(modes=("RGB",)))
def test_every_painted_pixel_lies_under_a_masked_token_inside_the_box(case):
    photo, mask = case
    plan = plan_edit(photo, mask, SIZE, GRID)
    left, top, right, bottom = plan.box
    assert plan.blanked.shape == (1, 3, SIZE, SIZE) and plan.blanked.abs().max() <= 1
    for row, column in np.argwhere(mask):
        assert top <= row < bottom and left <= column < right
        cell_row = int((row - top) * GRID / (bottom - top))
        cell_column = int((column - left) * GRID / (right - left))
        assert plan.token_mask[cell_row, cell_column]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2), st.randoms())
def test_a_token_is_masked_if_and_only_if_paint_comes_within_the_ring(
    height, width, grid, ring, random
):
    mask = np.zeros((height, width), bool)
    for _ in range(3):
        mask[random.randrange(height), random.randrange(width)] = True
    touched = np.zeros((grid, grid), bool)
    for row in range(grid):
        for column in range(grid):
            # A pixel covers the open interval (i, i + 1); a cell (row, row + 1) * height / grid.
            rows = [
                y for y in range(height) if (y + 1) * grid > row * height
                and y * grid < (row + 1) * height
            ]  # fmt: skip
            columns = [
                x for x in range(width) if (x + 1) * grid > column * width
                and x * grid < (column + 1) * width
            ]  # fmt: skip
            touched[row, column] = mask[np.ix_(rows, columns)].any()
    expected = np.zeros_like(touched)
    for row, column in np.argwhere(touched):
        expected[max(row - ring, 0) : row + ring + 1, max(column - ring, 0) : column + ring + 1] = 1
    found = token_mask_from_pixels(mask, grid, ring=ring)
    assert found.dtype == torch.bool
    assert np.array_equal(found.numpy(), expected)


def test_hidden_pixels_of_a_large_photo_have_no_influence_either():
    mask = np.zeros((SIZE * 17, SIZE * 20), bool)
    mask[100:301, 77:390] = True
    photo = Image.linear_gradient("L").resize((SIZE * 20, SIZE * 17)).convert("RGB")
    other = photo.copy()
    other.paste((255, 0, 255), mask=Image.fromarray(mask))
    plans = [plan_edit(image, mask, SIZE, GRID) for image in (photo, other)]
    assert plans[0].box[2] - plans[0].box[0] > 16 * SIZE
    assert torch.equal(plans[0].blanked, plans[1].blanked)
    whole = to_tensor(photo.crop(plans[0].box).resize((SIZE, SIZE), Image.Resampling.BOX))
    seen = np.s_[..., 0:5, :]
    assert (plans[0].blanked[seen] - whole[seen]).abs().max() < 0.02


def test_the_page_mask_and_the_arrays_mean_the_same():
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    forms = [
        mask,
        torch.from_numpy(mask),
        torch.from_numpy(mask)[None, None].float(),
        mask[..., None].astype(np.uint8),
        mask.astype(np.uint8) * 255,
        Image.fromarray(mask.astype(np.uint8) * 200),
        Image.fromarray(mask),
    ]
    for form in forms:
        assert np.array_equal(as_pixel_mask(form, (7, 5)), mask)


def mask_forms(mask):
    """Every way in which a mask comes, by name."""
    levels = mask.astype(np.uint8) * 255
    grey, none, full = (Image.fromarray(v) for v in (levels, levels * 0, levels * 0 + 255))
    colour = grey.convert("RGB")
    yield from (
        (mode, grey.convert(mode)) for mode in ("1", "P", "LA", "RGB", "RGBA", "YCbCr", "PA")
    )
    yield from ((mode, colour.convert(mode)) for mode in ("CMYK", "HSV", "RGBX", "RGBa"))
    yield "La", grey.convert("LA").convert("La")
    yield "palette", grey.quantize(2)
    yield "black drawn on transparency", Image.merge("LA", (none, grey))
    yield "white drawn on transparency", Image.merge("RGBA", (full, full, full, grey))
    yield "drawn almost opaque", Image.merge("LA", (grey, full.point(lambda v: 250)))
    for most in (1, 255, 65535):
        values = mask.astype(np.int64) * most
        dtypes = [np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
        for dtype in dtypes + ([np.uint8, np.int16, np.float16] if most <= 255 else []):
            yield f"{np.dtype(dtype).name} to {most}", values.astype(dtype)
        yield f"I;16 to {most}", Image.fromarray(values.astype(np.uint16))
        yield f"I to {most}", Image.fromarray(values.astype(np.int32))
        yield f"F to {most}", Image.fromarray(values.astype(np.float32))
        big = values.astype(">u2").tobytes()
        yield f"I;16B to {most}", Image.frombytes("I;16B", grey.size, big)
        yield f"tensor to {most}", torch.from_numpy(values)
    yield "L of 0 and 1", Image.fromarray(mask.astype(np.uint8))
    for above in (1.0001, 1.02, 1.2):
        yield f"floats to {above}", mask * above - 0.001
        yield f"F to {above}", Image.fromarray((mask * above).astype(np.float32))
    yield "bfloat16", torch.from_numpy(mask).to(torch.bfloat16)
    yield "bool, channels first", mask[None]


def test_a_mask_means_the_same_in_every_form():
    mask = np.random.default_rng(0).random((5, 7)) < 0.4
    for name, form in mask_forms(mask):
        assert np.array_equal(as_pixel_mask(form, (7, 5)), mask), name


def test_smooth_edges_of_a_mask_are_cut_in_the_middle():
    ramp = np.linspace(0, 1, 11)[None]
    wanted = ramp > 0.5
    for values in (
        ramp,
        ramp * 255,
        (ramp * 65535).astype(np.uint16),
        (ramp * 255).astype(np.uint8),
    ):
        assert np.array_equal(as_pixel_mask(values, (11, 1)), wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mask_of_numbers_that_are_none_is_refused(value):
    mask = np.ones((5, 7), np.float32)
    mask[0, 0] = value
    with pytest.raises(ValueError, match="^pixel_mask must hold finite numbers"):
        as_pixel_mask(mask, (7, 5))


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((7, 5), bool),
        np.ones((5, 7, 3), bool),
        Image.new("L", (5, 7), 255),
        Image.new("RGBA", (7, 5)),
        np.full((5, 7), "x"),
        [[True]],
    ],
)
def test_masks_of_another_size_or_kind_are_refused(mask):
    with pytest.raises(ValueError, match="^pixel_mask must"):
        plan_edit(noise(7, 5), mask, SIZE, GRID)


def test_nothing_painted_is_refused():
    with pytest.raises(ValueError, match="^pixel_mask must have something painted"):
        plan_edit(noise(7, 5), np.zeros((5, 7), bool), SIZE, GRID)


@pytest.mark.parametrize("size", [(SIZE, SIZE), (50, 30), (1, 1)])
def test_everything_painted_is_generation(size):
    photo = noise(*size)
    plan = plan_edit(photo, np.ones(size[::-1], bool), SIZE, GRID)
    assert plan.token_mask.all()
    assert plan.blanked.unique().numel() == 1
    result = finish_edit(plan, generated())
    assert result.size == size
    if size == (SIZE, SIZE):
        assert np.array_equal(np.asarray(result), np.asarray(to_image(generated())))


def test_at_the_models_size_visible_pixels_reach_the_network_unchanged():
    photo = noise(SIZE, SIZE)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[8:16, 8:12] = True
    plan = plan_edit(photo, mask, SIZE, GRID)
    assert plan.box == (0, 0, SIZE, SIZE)
    visible = torch.from_numpy(~mask)
    assert torch.equal(plan.blanked[0][:, visible], to_tensor(photo)[0][:, visible])
    # Four by four pixels a token: rows 2 and 3, column 2, and the ring around.
    expected = torch.zeros(GRID, GRID, dtype=torch.bool)
    expected[1:5, 1:4] = True
    assert torch.equal(plan.token_mask, expected)


def test_a_small_area_of_a_large_photo_gets_many_pixels_and_some_surroundings():
    mask = np.zeros((600, 800), bool)
    mask[280:300, 700:720] = True
    left, top, right, bottom = plan_edit(noise(800, 600), mask, SIZE, GRID).box
    assert right - left == bottom - top == 2 * SIZE
    assert (left, top) == (678, 258)
    mask[250:350, 650:750] = True
    left, top, right, bottom = plan_edit(noise(800, 600), mask, SIZE, GRID).box
    assert right - left == bottom - top == 200
    assert (left, top) == (600, 200)


@given(st.integers(1, 6), st.integers(0, 99))
def test_the_whole_of_a_photo_that_is_not_much_larger_is_seen(hole, seed):
    photo = noise(2 * SIZE, 2 * SIZE, seed=seed)
    mask = np.zeros((2 * SIZE, 2 * SIZE), bool)
    mask[:hole, :hole] = True
    assert plan_edit(photo, mask, SIZE, GRID).box == (0, 0, 2 * SIZE, 2 * SIZE)


def test_an_area_wider_than_the_photo_is_high_reaches_beyond_it():
    mask = np.zeros((40, 100), bool)
    mask[10:20, 5:55] = True
    plan = plan_edit(noise(100, 40), mask, SIZE, GRID)
    left, top, right, bottom = plan.box
    assert (right - left, bottom - top) == (50, 50)
    assert top < 0 and bottom > 40
    beyond = [row for row in range(GRID) if (row * 50 / GRID + top < 0)]
    assert plan.token_mask[beyond].all() and not plan.token_mask.all()


def test_a_very_long_area_is_squeezed_rather_than_left_without_surroundings():
    mask = np.zeros((40, 400), bool)
    mask[:10] = True
    plan = plan_edit(noise(400, 40), mask, SIZE, GRID)
    assert plan.box == (0, -10, 400, 50)
    assert not plan.token_mask.all()


def test_a_box_of_the_callers_is_used_and_checked():
    photo, mask = noise(60, 40), np.zeros((40, 60), bool)
    mask[10:14, 20:24] = True
    assert plan_edit(photo, mask, SIZE, GRID, box=(12, 4, 28, 20)).box == (12, 4, 28, 20)
    for box in ((22, 4, 38, 20), (30, 4, 20, 20)):
        with pytest.raises(ValueError, match="^box must"):
            plan_edit(photo, mask, SIZE, GRID, box=box)


def test_the_generated_square_fills_the_hole_where_it_was_seen():
    photo = noise(60, 40)
    mask = np.zeros((40, 60), bool)
    mask[6:22, 14:30] = True
    box = (6, 2, 6 + SIZE, 2 + SIZE)
    square = generated()
    result = np.asarray(composite(photo, square, mask, box))
    # The middle of the hole is further from its edge than the blend reaches.
    expected = np.asarray(to_image(square))[4 + 4 : 20 - 4, 8 + 4 : 24 - 4]
    assert np.array_equal(result[6 + 4 : 22 - 4, 14 + 4 : 30 - 4], expected)


def test_a_difference_in_colour_does_not_show_at_the_edge():
    ramp = np.linspace(60, 160, SIZE).round().astype(np.uint8)
    photo = Image.fromarray(np.stack([np.broadcast_to(ramp, (SIZE, SIZE))] * 3, -1))
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:28, 4:28] = True
    shifted = to_tensor(photo) + 40 / 127.5
    result = np.asarray(composite(photo, shifted, mask)).astype(int)
    error = np.abs(result - np.asarray(photo).astype(int))[..., 0]
    assert error[4, 4:28].max() <= 6 and error[4:28, 27].max() <= 6
    assert error[14:18, 14:18].min() >= 39


def test_repainted_pixels_of_a_transparent_photo_are_opaque():
    photo = Image.new("RGBA", (SIZE, SIZE), (9, 9, 9, 50))
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:10] = True
    result = np.asarray(composite(photo, generated(), mask))
    assert (result[:10, :, 3] == 255).all() and (result[10:, :, 3] == 50).all()


def test_nothing_painted_composites_to_the_photo():
    photo = noise(SIZE, SIZE)
    result = composite(photo, generated(), np.zeros((SIZE, SIZE), bool))
    assert np.array_equal(np.asarray(result), np.asarray(photo))


def test_a_square_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="^generated must"):
        composite(noise(4, 4), torch.zeros(1, 3, 4, 5), np.ones((4, 4), bool))


def test_extending_to_one_side_shifts_the_photo_on_the_token_grid():
    photo = noise(SIZE, SIZE)
    plan = plan_outpaint(photo, SIZE, GRID, left=0.25)
    assert plan.image.size == (SIZE + 8, SIZE)
    assert plan.box == (0, 0, SIZE, SIZE)
    # Two tokens are new and one more is the ring; what is seen of the photo is not resized.
    assert plan.token_mask.all(0).tolist() == [True] * 3 + [False] * 5
    assert torch.equal(plan.blanked[..., 8:], to_tensor(photo)[..., : SIZE - 8])
    result = np.asarray(finish_edit(plan, generated()))
    assert np.array_equal(result[:, 8:], np.asarray(photo))


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.tuples(*[st.sampled_from([0.0, 0.01, 0.3, 1.0])] * 4).filter(any),
)
def test_an_extended_photo_is_kept_where_it_was(size, shares):
    photo = noise(*size)
    names = ("left", "right", "up", "down")
    plan = plan_outpaint(photo, SIZE, GRID, **dict(zip(names, shares, strict=True)))
    rows, columns = np.flatnonzero(~plan.pixel_mask.all(1)), np.flatnonzero(~plan.pixel_mask.all(0))
    assert (len(columns), len(rows)) == size
    grown = {
        "left": columns[0],
        "right": plan.image.width - 1 - columns[-1],
        "up": rows[0],
        "down": plan.image.height - 1 - rows[-1],
    }
    assert [grown[name] > 0 for name in names] == [share > 0 for share in shares]
    result = np.asarray(finish_edit(plan, generated()))
    assert np.array_equal(result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], photo)


@pytest.mark.parametrize("shares", [{}, {"left": 1.5}, {"up": -0.1}])
def test_extensions_out_of_range_are_refused(shares):
    with pytest.raises(ValueError, match="^(left|up).* must be"):
        plan_outpaint(noise(8, 8), SIZE, GRID, **shares)


def area_weights(small, large):
    """float64 (small, large): the part of each large pixel that lies in each small one."""
    weights = np.zeros((small, large))
    for row, column in np.ndindex(small, large):
        low = max(row * large, column * small)
        high = min((row + 1) * large, (column + 1) * small)
        weights[row, column] = max(0, high - low) / small
    return weights


def reference_fill(pixels, hidden):
    """The fill in float64, with matrices instead of an image library."""
    height, width = hidden.shape
    scale = min(1.0, 96 / max(width, height))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    down, across = area_weights(rows, height), area_weights(columns, width)
    visible = (~hidden).astype(np.float64)
    share = down @ visible @ across.T
    sums = np.stack([down @ (pixels[..., c] * visible) @ across.T for c in range(3)])
    with np.errstate(invalid="ignore"):
        means = torch.from_numpy(np.where(share > 1e-6, sums / share, 0.0))[None]
    known = torch.from_numpy(share > 1e-6)[None, None].double()
    smooth = extrapolate(means, known)
    grown = torch.nn.functional.interpolate(
        smooth, (height, width), mode="bilinear", align_corners=False
    )[0].permute(1, 2, 0)
    return np.where(hidden[..., None], grown.numpy(), pixels)


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(20, 400), st.integers(20, 400)),
    st.integers(0, 99),
    st.sampled_from(["line", "checks", "almost all", "disc"]),
)
def test_the_fill_is_that_of_a_computation_in_double_precision(size, seed, kind):
    width, height = size
    pixels = np.asarray(noise(width, height, seed=seed))
    rows, columns = np.mgrid[:height, :width]
    hidden = {
        "line": (columns > width // 3) & (columns < width // 3 + 9),
        "checks": (rows + columns) % 3 > 0,
        # One visible pixel in the corner of a small one: in 8 bits, its weight would be 0 or 1.
        "almost all": (rows % 13 > 0) | (columns % 11 > 0),
        "disc": (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < min(size) ** 2 / 9,
    }[kind]
    if not hidden.any() or hidden.all():
        return
    found = np.asarray(fill_hidden(Image.fromarray(pixels), hidden)).astype(float)
    assert np.abs(found - reference_fill(pixels, hidden)).max() <= 0.51


def test_fills_stay_within_the_range_of_visible_colours():
    photo = Image.new("RGB", (50, 40), (200, 0, 0))
    hidden = np.zeros((40, 50), bool)
    hidden[:, 10:30] = True
    photo.paste((0, 0, 200), (30, 0, 50, 40))
    filled = np.asarray(fill_hidden(photo, hidden)).astype(int)
    assert filled[..., 1].max() == 0
    middle = filled[20, 10:30]
    assert (np.diff(middle[:, 0]) <= 0).all() and (np.diff(middle[:, 2]) >= 0).all()


def test_extrapolation_keeps_known_values_and_never_reads_unknown_ones():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, 3, 13, 9, generator=generator)
    known = (torch.rand(1, 1, 13, 9, generator=generator) < 0.2).float()
    filled = extrapolate(values, known)
    seen = (known > 0).expand_as(values)
    assert torch.equal(filled[seen], values[seen])
    assert torch.equal(filled, extrapolate(torch.where(seen, values, torch.nan), known))
    assert filled.min() >= values[seen].min() and filled.max() <= values[seen].max()
