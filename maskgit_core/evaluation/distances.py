"""Measures between images and between sets of features: pure functions on tensors.

Everything is a few lines of linear algebra in float64, so torch is enough: a library would bring
a second numerical stack for one function. The matrix root of the Fréchet distance is not formed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
CHUNK_ROWS = 512
EDGE = 1e-9


def check_features(name: str, features: Tensor, least: int) -> None:
    """Raise ValueError unless features are finite floats (num, dim) with at least `least` rows."""
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            f"{name} must be floats (num, dim); got {features.dtype} {tuple(features.shape)}"
        )
    if len(features) < least:
        raise ValueError(f"{name} must hold at least {least} rows; got {len(features)}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"{name} must be finite; got nan or infinity")


def check_pair(first: tuple[str, Tensor], second: tuple[str, Tensor], least: int) -> None:
    """Raise ValueError unless both are features, see `check_features`, of one width."""
    check_features(*first, least)
    check_features(*second, least)
    if first[1].shape[1] != second[1].shape[1]:
        raise ValueError(
            f"{first[0]} and {second[0]} must have one width; "
            f"got {first[1].shape[1]} and {second[1].shape[1]}"
        )


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Return the structural similarity of pairs of images.

    Args:
        images, targets: float32 (B, 3, H, W) in [-1, 1]; sides of at least 11 pixels. Values
            outside are clamped.

    Returns:
        float32 (B,), at most 1, mean over the colour channels and over all places where the
        window lies inside the image.

    Raises:
        ValueError: shapes that differ or are too small.

    Reference: Wang et al. 2004, Eq. 13, Gaussian window of 11 pixels, sigma 1.5; differs: colour
    channels apart in place of luminance.
    """
    if images.shape != targets.shape or images.ndim != 4 or min(images.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"images and targets must be (B, C, H, W) of one shape, sides of at least "
            f"{SSIM_WINDOW}; got {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    places = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=images.device)
    window = torch.exp(-((places - SSIM_WINDOW // 2) ** 2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()

    def blurred(x: Tensor) -> Tensor:
        x = F.conv2d(x, window.view(1, 1, 1, -1))
        return F.conv2d(x, window.view(1, 1, -1, 1))

    x, y = (
        (part.double().clamp(-1, 1) / 2 + 0.5).flatten(0, 1)[:, None] for part in (images, targets)
    )
    mean_x, mean_y = blurred(x), blurred(y)
    var_x = blurred(x * x) - mean_x**2
    var_y = blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).unflatten(0, images.shape[:2]).mean(dim=(1, 2, 3, 4)).float()


class GaussianFit(NamedTuple):
    """Mean and a triangular factor R of the covariance, R^T R, of a set of features.

    Attributes:
        mean: float64 (dim,).
        factor: float64 (min(num, dim), dim).
    """

    mean: Tensor
    factor: Tensor


def fit_gaussian(features: Tensor) -> GaussianFit:
    """Return the Gaussian of float (num, dim) features, covariance divided by num - 1.

    Raises:
        ValueError: fewer than 2 rows, or values that are not finite.
    """
    check_features("features", features, 2)
    features = features.double()
    mean = features.mean(0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    return GaussianFit(mean, torch.linalg.qr(centred, mode="r").R)


def frechet_distance(first: GaussianFit, second: GaussianFit) -> float:
    """Return the squared Fréchet distance of two Gaussians; 0 for equal ones.

    With covariances R^T R and S^T S the trace of the root of their product is the sum of the
    singular values of R S^T, which stays exact where a covariance is singular (fewer images than
    features); a matrix root does not.

    Reference: Dowson and Landau 1982; as a measure of images FID (Heusel et al. 2017), Eq. 6.
    """
    shift = (first.mean - second.mean).square().sum()
    spread = first.factor.square().sum() + second.factor.square().sum()
    overlap = torch.linalg.svdvals(first.factor @ second.factor.T).sum()
    return max(0.0, (shift + spread - 2 * overlap).item())


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]: of samples near photos, and of photos near samples."""

    precision: float
    recall: float


def manifold_radii(features: Tensor, neighbours: int) -> Tensor:
    """Return float64 (num,), the distance of each row to its k-th nearest other row."""
    features = features.double()
    parts = [
        # The row itself, at distance 0, is the first of the sorted distances.
        torch.cdist(part, features).kthvalue(neighbours + 1, dim=1).values
        for part in features.split(CHUNK_ROWS)
    ]
    return torch.cat(parts)


def share_inside(points: Tensor, features: Tensor, radii: Tensor) -> float:
    """Return the share of points (num, dim) that lie within the radius of any feature row.

    A point on the very edge is inside, whatever a processor's way of adding up makes of it.
    """
    features, radii = features.double(), radii * (1 + EDGE)
    inside = [
        (torch.cdist(part, features) <= radii).any(dim=1)
        for part in points.double().split(CHUNK_ROWS)
    ]
    return torch.cat(inside).double().mean().item()


def precision_recall(photos: Tensor, samples: Tensor, *, neighbours: int = 3) -> PrecisionRecall:
    """Return precision and recall of samples by the k-nearest-neighbour manifold.

    Args:
        photos, samples: float (num, dim); both values depend on the numbers of rows, so compare
            only equal counts.
        neighbours: k; a row's ball reaches to its k-th nearest neighbour in its own set.

    Raises:
        ValueError: fewer than k + 1 rows, widths that differ, or values that are not finite.

    Reference: Kynkäänniemi et al. 2019, Eq. 1 and 2.
    """
    check_pair(("photos", photos), ("samples", samples), neighbours + 1)
    return PrecisionRecall(
        share_inside(samples, photos, manifold_radii(photos, neighbours)),
        share_inside(photos, samples, manifold_radii(samples, neighbours)),
    )


class Nearest(NamedTuple):
    """Distance float32 (num,) and place int64 (num,) of the nearest row of another set."""

    distance: Tensor
    index: Tensor  # type: ignore[assignment]  # a tuple has a method of this name


def nearest_rows(queries: Tensor, features: Tensor) -> Nearest:
    """Return the nearest row of features (num, dim) for each of the queries (num, dim).

    Raises:
        ValueError: an empty set, widths that differ, or values that are not finite.
    """
    check_pair(("queries", queries), ("features", features), 1)
    features, queries = features.double(), queries.double()
    index = torch.cat(
        [torch.cdist(part, features).argmin(dim=1) for part in queries.split(CHUNK_ROWS)]
    )
    # Once more without the cancellation of the chunked product, which matters near 0.
    return Nearest((queries - features[index]).norm(dim=1).float(), index)


class LinearProbe(NamedTuple):
    """A linear classifier of standardised features; rows are classified by `predict`.

    Attributes:
        mean, scale: float64 (dim,).
        weight: float64 (dim, num_classes).
        bias: float64 (num_classes,).
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Return int64 (num,), the likeliest class of each row of float (num, dim)."""
        standard = (features.double() - self.mean) * self.scale
        return (standard @ self.weight + self.bias).argmax(1)


def fit_probe(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    weight_decay: float = 1e-3,
    max_iterations: int = 200,
) -> LinearProbe:
    """Return multinomial logistic regression fitted with L-BFGS; no randomness is involved.

    Args:
        features: float (num, dim).
        labels: int64 (num,), in [0, num_classes).
        num_classes: at least 2.
        weight_decay: of the squared weights, halved, beside the mean cross-entropy in nats.
        max_iterations: of L-BFGS.

    Raises:
        ValueError: labels of another length or out of range, or features that are not finite.
    """
    check_features("features", features, 1)
    if labels.shape != features.shape[:1] or num_classes < 2:
        raise ValueError(
            f"labels must be one a row, of at least 2 classes; got {tuple(labels.shape)} labels "
            f"for {tuple(features.shape)} features, {num_classes} classes"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(
            f"labels must be in 0..{num_classes - 1}; got {int(labels.min())}..{int(labels.max())}"
        )
    features = features.double()
    mean = features.mean(0)
    scale = 1 / features.std(0, correction=0).clamp(min=1e-6)
    standard = (features - mean) * scale
    weight = torch.zeros(features.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        tolerance_grad=1e-6,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(standard @ weight + bias, labels)
        loss = loss + weight_decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return LinearProbe(mean, scale, weight.detach(), bias.detach())
