"""Measures against closed forms, hand cases, and numbers of scipy, scikit-image, scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit_core.evaluation.distances import (
    fit_gaussian,
    fit_probe,
    frechet_distance,
    nearest_rows,
    precision_recall,
    ssim,
)


def wave(rows: int, dim: int, step: float) -> torch.Tensor:
    """Return float64 (rows, dim), values that any library computes alike."""
    return (torch.arange(rows * dim, dtype=torch.float64) ** 1.5 * step).sin().view(rows, dim)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return frechet_distance(fit_gaussian(first), fit_gaussian(second))


def standard_points(num: int, dim: int, seed: int) -> torch.Tensor:
    """Return float64 (num, dim) with mean 0 and covariance exactly the identity."""
    points = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed)).double()
    points = points - points.mean(0)
    return torch.linalg.qr(points).Q * (num - 1) ** 0.5


numbers = st.floats(-3, 3)
spreads = st.floats(0, 3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, spreads, spreads), min_size=1, max_size=5))
def test_frechet_distance_of_independent_gaussians(axes: list[tuple[float, ...]]) -> None:
    means_a, means_b, spread_a, spread_b = torch.tensor(axes, dtype=torch.float64).T
    first = standard_points(40, len(axes), 0) * spread_a + means_a
    second = standard_points(25, len(axes), 1) * spread_b + means_b
    wanted = sum((a - b) ** 2 + (s - t) ** 2 for a, b, s, t in axes)
    assert distance(first, second) == pytest.approx(wanted, abs=1e-6)


def test_frechet_distance_equals_scipy() -> None:
    # scipy 1.17.1: trace of sqrtm(cov_a @ cov_b)
    first, second = wave(60, 8, 0.1), wave(40, 8, 0.23) * 1.5 + 0.3
    assert distance(first, second) == pytest.approx(2.5715387510236023, rel=1e-10)
    assert distance(second, first) == pytest.approx(2.5715387510236023, rel=1e-10)


def test_frechet_distance_with_fewer_rows_than_features() -> None:
    rows = wave(7, 50, 0.3)
    assert distance(rows, rows) == pytest.approx(0, abs=1e-10)
    assert distance(rows, rows.flip(0) + 2) == pytest.approx(50 * 4, rel=1e-9)


def test_ssim_of_equal_images_is_one() -> None:
    images = wave(2 * 3 * 16, 16, 0.1).view(2, 3, 16, 16).float()
    assert torch.allclose(ssim(images, images), torch.ones(2))


def test_ssim_equals_scikit_image() -> None:
    # scikit-image 0.26.0: gaussian_weights=True, use_sample_covariance=False, sigma=1.5
    first = wave(60, 24, 0.01).view(1, 3, 20, 24)
    second = (first + 0.4 * wave(60, 24, 0.7).view(1, 3, 20, 24)).clamp(-1, 1)
    assert ssim(first, second).item() == pytest.approx(0.8984894923950325, abs=1e-6)


def test_ssim_of_flat_images_is_their_luminance_term() -> None:
    first, second = torch.full((1, 3, 12, 12), -0.6), torch.full((1, 3, 12, 12), 0.2)
    a, b, c1 = 0.2, 0.6, 0.01**2
    wanted = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(first, second).item() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 10, 20), (3, 20, 20), (1, 3, 20, 21)])
def test_ssim_names_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of one shape, sides of at least 11"):
        ssim(torch.zeros(shape), torch.zeros(1, 3, 20, 20))


def test_precision_and_recall_of_equal_and_of_distant_sets() -> None:
    rows = wave(30, 6, 0.2)
    assert precision_recall(rows, rows) == (1, 1)
    assert precision_recall(rows, rows + 100) == (0, 0)


def test_a_dropped_mode_costs_recall_and_a_false_one_precision() -> None:
    near, far = wave(20, 4, 0.2), wave(20, 4, 0.5) + 50
    both = torch.cat([near, far])
    assert precision_recall(both, near) == (1, 0.5)
    assert precision_recall(near, both) == (0.5, 1)


def test_more_neighbours_widen_the_manifold() -> None:
    photos = torch.arange(10, dtype=torch.float64)[:, None]
    samples = photos + 15.0
    # The last photo is at 9, the first sample at 15: 6 apart, a ball of k neighbours reaches k.
    assert precision_recall(photos, samples, neighbours=5).precision == 0
    assert precision_recall(photos, samples, neighbours=6).precision == 0.1


def test_precision_needs_more_rows_than_neighbours() -> None:
    with pytest.raises(ValueError, match="samples must hold at least 4 rows; got 3"):
        precision_recall(torch.zeros(9, 2), torch.zeros(3, 2))


def test_nearest_rows_finds_a_shuffled_copy() -> None:
    rows = wave(700, 5, 0.3).float()
    order = torch.randperm(700, generator=torch.Generator().manual_seed(0))
    found = nearest_rows(rows[order], rows)
    assert torch.equal(found.index, order)
    assert found.distance.max() == 0


def test_probe_separates_what_a_line_separates() -> None:
    rows = wave(90, 3, 0.4)
    labels = (rows[:, 0] > 0.3).long() + (rows[:, 0] > 0.8).long()
    rows[:, 0] += labels
    probe = fit_probe(rows * 100 + 7, labels, 3, weight_decay=1e-6)
    assert torch.equal(probe.predict(rows * 100 + 7), labels)
    assert not torch.equal(probe.predict(rows * 100 - 99), labels)


def test_probe_equals_scikit_learn() -> None:
    # scikit-learn 1.9.0: LogisticRegression(C=1 / (90 * 1e-3)) of standardised features
    rows = wave(90, 4, 0.37)
    labels = (rows[:, 0] + wave(90, 1, 0.9)[:, 0] > 0).long() + (rows[:, 1] > 0.5).long()
    probe = fit_probe(rows, labels, 3)
    wanted = [
        [-1.01627512, 0.309961991, 0.706313128],
        [-1.74916022, -0.336854643, 2.08601486],
        [0.0938255585, -0.240698787, 0.146873229],
        [0.00184057044, -0.00628186381, 0.00444129337],
    ]
    assert torch.allclose(probe.weight, torch.tensor(wanted).double(), atol=1e-3)
    assert probe.bias.tolist() == pytest.approx([0.03772765, 1.44604806, -1.48377571], abs=1e-3)


def test_probe_survives_a_feature_that_never_changes() -> None:
    rows = torch.cat([wave(20, 2, 0.4), torch.full((20, 1), 5.0)], dim=1)
    labels = (rows[:, 0] > 0).long()
    probe = fit_probe(rows, labels, 2)
    assert bool(torch.isfinite(probe.weight).all())
    assert (probe.predict(rows) == labels).double().mean() > 0.9


@pytest.mark.parametrize("labels", [[0, 1, 3], [-1, 0, 1], [0, 1]])
def test_probe_names_labels_that_do_not_fit(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="labels must be"):
        fit_probe(wave(3, 2, 0.1), torch.tensor(labels), 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_measures_refuse_features_that_are_not_finite(bad: float) -> None:
    rows = wave(10, 2, 0.1)
    broken = rows.clone()
    broken[3, 1] = bad
    for call in (
        lambda: fit_gaussian(broken),
        lambda: precision_recall(rows, broken),
        lambda: nearest_rows(broken, rows),
        lambda: fit_probe(broken, torch.zeros(10).long(), 2),
    ):
        with pytest.raises(ValueError, match="must be finite"):
            call()
