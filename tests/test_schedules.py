import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskgit_core.schedules import (
    GUIDANCE_SCHEDULES,
    NOISE_SCHEDULES,
    SCHEDULES,
    guidance_at,
    mask_ratio,
    noise_at,
    reveal_counts,
    temperature_at,
)

TABLES = json.loads((Path(__file__).parent / "fixtures/samplers/tables.json").read_text())
schedules = st.sampled_from(list(SCHEDULES))
rounded = st.sampled_from([name for name in SCHEDULES if name != "arccos_increments"])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mask_ratio_falls_from_exactly_one_to_exactly_zero(schedule):
    ratios = [mask_ratio(schedule, step / 100) for step in range(101)]
    assert ratios[0] == 1 and ratios[-1] == 0
    assert all(before > after for before, after in itertools.pairwise(ratios))


@pytest.mark.parametrize(
    ("schedule", "at_a_quarter"),
    [
        ("cosine", math.cos(math.pi / 8)),
        ("arccos", math.acos(0.25) / (math.pi / 2)),
        ("linear", 0.75),
        ("square", 0.9375),
        ("root", 0.5),
        ("arccos_floor", math.acos(0.25) / (math.pi / 2)),
        ("arccos_increments", 1 - (math.sqrt(0.4375) - 0.75 * math.acos(0.75))),
    ],
)
def test_mask_ratio_follows_its_formula(schedule, at_a_quarter):
    assert mask_ratio(schedule, 0.25) == pytest.approx(at_a_quarter, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_mask_ratio_keeps_its_ends_and_its_type(schedule, dtype):
    ratio = mask_ratio(schedule, torch.tensor([0.0, 1.0], dtype=dtype))
    assert ratio.dtype == dtype and ratio.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_mask_ratio_of_a_tensor_is_that_of_its_numbers(schedule):
    progress = torch.linspace(0, 1, 9)
    ratios = mask_ratio(schedule, progress)
    assert ratios.dtype == torch.float32 and ratios.shape == progress.shape
    expected = [mask_ratio(schedule, float(r)) for r in progress]
    torch.testing.assert_close(ratios, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("r", [-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0])])
def test_mask_ratio_refuses_progress_outside_its_range(r):
    with pytest.raises(ValueError, match=r"^r must"):
        mask_ratio("cosine", r)


@given(schedules, st.integers(1, 400), st.integers(1, 500))
def test_counts_are_positive_and_sum_to_the_unknown_tokens(schedule, num_unknown, num_steps):
    counts = reveal_counts(schedule, num_unknown, num_steps)
    assert len(counts) == min(num_steps, num_unknown)
    assert min(counts) >= 1
    assert sum(counts) == num_unknown


@given(rounded, st.integers(1, 400), st.integers(1, 40))
def test_counts_stay_close_to_the_schedule(schedule, num_unknown, num_steps):
    num_steps = min(num_steps, num_unknown)
    masked = num_unknown
    for step, count in enumerate(reveal_counts(schedule, num_unknown, num_steps)):
        masked -= count
        wanted = num_unknown * mask_ratio(schedule, (step + 1) / num_steps)
        later_steps = num_steps - step - 1
        assert masked <= max(wanted + 1e-3 + 1, later_steps)
        assert masked >= min(wanted - 1e-3 - 1, masked + count - 1)


def test_no_unknown_tokens_take_no_steps():
    assert reveal_counts("cosine", 0, 8) == []


@pytest.mark.parametrize("schedule", ["linear", "square"])
def test_whole_numbers_are_not_lost_to_rounding(schedule):
    counts = reveal_counts(schedule, 100, 10)
    assert counts == ([10] * 10 if schedule == "linear" else list(range(1, 20, 2)))


@pytest.mark.parametrize("num_unknown", TABLES["google_cosine_counts"])
def test_cosine_counts_equal_those_of_the_published_maskgit(num_unknown):
    for num_steps, counts in TABLES["google_cosine_counts"][num_unknown].items():
        assert reveal_counts("cosine", int(num_unknown), int(num_steps)) == counts


@pytest.mark.parametrize("side", TABLES["halton_counts"])
def test_arccos_counts_equal_those_of_the_published_halton_sampler(side):
    for num_steps, counts in TABLES["halton_counts"][side].items():
        assert reveal_counts("arccos", int(side) ** 2, int(num_steps)) == counts


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sine", 4, 4), "schedule"),
        (("cosine", -1, 4), "num_unknown"),
        (("cosine", 4, 0), "num_steps"),
        (("cosine", 4, 2.5), "num_steps"),
    ],
)
def test_counts_refuse_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        reveal_counts(*arguments)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "revealed"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_ends_at_the_scale_and_is_it_where_there_is_one_step(schedule, scale):
    assert guidance_at(schedule, scale, 7, 8, 1.0) == pytest.approx(scale, abs=1e-12)
    assert guidance_at(schedule, scale, 0, 1, 1.0) == scale


def test_guidance_between_the_ends():
    assert guidance_at("constant", 3.0, 0, 5, 0.1) == 3
    assert guidance_at("linear", 3.0, 0, 5, 0.1) == 1
    assert guidance_at("linear", 3.0, 1, 5, 0.1) == 1.5
    assert guidance_at("cosine", 3.0, 0, 5, 0.1) == 1
    assert guidance_at("cosine", 3.0, 1, 5, 0.1) == pytest.approx(2 - math.cos(math.pi / 4))
    assert guidance_at("revealed", 3.0, 1, 5, 0.1) == pytest.approx(1.2)


@pytest.mark.parametrize("schedule", ["elapsed", "power_cosine"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_by_elapsed_steps_starts_at_none_and_stays_below_the_scale(schedule, scale):
    scales = [guidance_at(schedule, scale, step, 8, 1.0, 2.5) for step in range(8)]
    assert scales[0] == guidance_at(schedule, scale, 0, 1, 1.0) == 1
    assert scales == sorted(scales, reverse=scale < 1)
    assert scale == 1 or min(scale, 1) < scales[-1] < max(scale, 1)


@pytest.mark.parametrize("schedule", NOISE_SCHEDULES)
def test_noise_falls_to_exactly_none_at_the_last_step(schedule):
    for steps in (1, 2, 9):
        scales = [noise_at(schedule, 4.5, step, steps) for step in range(steps)]
        assert scales[-1] == 0 and scales == sorted(scales, reverse=True) and max(scales) <= 4.5


def test_the_first_steps_noise_is_whole_or_a_little_less():
    assert noise_at("endpoints", 4.5, 0, 8) == 4.5
    assert noise_at("endpoints", 7.0, 7, 15) == pytest.approx(3.5)
    assert noise_at("remaining", 4.5, 0, 8) == pytest.approx(4.5 * 7 / 8)


def test_temperatures_of_the_first_and_the_last_step():
    assert [temperature_at(0.7, step, 3) for step in range(3)] == [0.7] * 3
    assert [temperature_at(0.7, step, 3, first=2.0) for step in range(3)] == [1.4, 0.7, 0.7]
    falling = [temperature_at(1.3, step, 4, last=0.5 / 1.3) for step in range(4)]
    assert falling == pytest.approx([1.1, 0.9, 0.7, 0.5])
    assert temperature_at(6.0, 0, 1, last=0.0) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sine", 3.0, 0, 4, 0.5), "guidance_schedule"),
        (("linear", 3.0, 4, 4, 0.5), "step"),
        (("linear", 3.0, 0, 0, 0.5), "num_steps"),
        (("revealed", 3.0, 0, 4, 1.5), "revealed_share"),
    ],
)
def test_guidance_refuses_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        guidance_at(*arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sine", 3.0, 0, 4), "noise_schedule"),
        (("endpoints", 3.0, 4, 4), "step"),
        (("endpoints", 3.0, 0, 0), "num_steps"),
    ],
)
def test_noise_refuses_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        noise_at(*arguments)


@pytest.mark.parametrize("grid", TABLES["v1_counts"])
def test_arccos_increments_are_the_v1_reproductions(grid):
    for num_steps, counts in TABLES["v1_counts"][grid].items():
        assert reveal_counts("arccos_increments", int(grid) ** 2, int(num_steps)) == counts


def test_every_schedule_has_a_sentence():
    for table in (SCHEDULES, GUIDANCE_SCHEDULES, NOISE_SCHEDULES):
        assert all(entry.info for entry in table.values())
