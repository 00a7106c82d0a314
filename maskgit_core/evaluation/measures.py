"""The measures of an evaluation: functions of gathered evidence, each a part of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskgit_core.evaluation.data import PhotoSet
from maskgit_core.evaluation.distances import (
    LinearProbe,
    Nearest,
    fit_gaussian,
    fit_probe,
    frechet_distance,
    precision_recall,
    ssim,
)
from maskgit_core.evaluation.store import Progress
from maskgit_core.evaluation.tables import BATCH, Evidence, Images
from maskgit_core.losses import codebook_use
from maskgit_core.pixels import psnr

# At 1e-3 the probe fits 99.5 % of the training photos and fewer held-out ones than at 1e-2.
PROBE_WEIGHT_DECAY = 1e-2

PairDistance = Callable[[Tensor, Tensor], Tensor]


def compare_pairs(
    photos: PhotoSet, images: Images, perceptual: PairDistance, progress: Progress
) -> dict[str, float]:
    """Return the mean PSNR in dB, SSIM and perceptual distance of photos and reconstructions."""
    values: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "perceptual": []}
    for start in progress("compare pairs", range(0, len(photos), BATCH)):
        rows = range(start, min(start + BATCH, len(photos)))
        made, real = images.batch(rows), photos.images(rows)
        values["psnr"].append(psnr(made, real))
        values["ssim"].append(ssim(made, real))
        with torch.inference_mode():
            values["perceptual"].append(perceptual(made, real).cpu())
    return {name: torch.cat(parts).double().mean().item() for name, parts in values.items()}


def recognised(
    probe: LinearProbe, features: Tensor, labels: Tensor, classes: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the mean share of the classes that the probe recognises, and that of each class.

    The mean over classes, not over images, makes sets of another class mix comparable.
    """
    right = (probe.predict(features) == labels).double()
    shares = {
        classes[label]: right[labels == label].mean().item() for label in labels.unique().tolist()
    }
    return sum(shares.values()) / len(shares), shares


def code_use(tokens: Tensor, codebook_size: int) -> dict[str, float]:
    """Return share of codes in use and perplexity of tokens int64 (num, h, w)."""
    use = codebook_use(torch.bincount(tokens.flatten(), minlength=codebook_size))
    return {"code_share": use.share, "perplexity": use.perplexity}


def frechet_distances(evidence: Evidence) -> dict[str, float | None]:
    """Return the Fréchet distances; `evaluation.evaluate` says what each compares."""
    photos = fit_gaussian(evidence.features)
    sets = {
        "rfd": (evidence.drawn_made_features, photos),
        "gfd": (evidence.sample_features, photos),
        "fd_floor": (evidence.features[evidence.drawn], photos),
        "rfd_val": (evidence.val_made_features, fit_gaussian(evidence.val_features)),
    }
    return {
        name: None if rows is None else frechet_distance(fit_gaussian(rows), other)
        for name, (rows, other) in sets.items()
    }


def manifold_shares(evidence: Evidence, neighbours: int) -> dict[str, Any]:
    """Return precision and recall of equal numbers of samples and drawn photos."""
    if evidence.sample_features is None:
        return {"precision": None, "recall": None, "precision_recall_count": 0}
    count = min(len(evidence.drawn), len(evidence.sample_features))
    photos = evidence.features[evidence.drawn[:count]]
    found = precision_recall(photos, evidence.sample_features[:count], neighbours=neighbours)
    return {**found._asdict(), "precision_recall_count": count}


def recognition(evidence: Evidence, classes: Sequence[str]) -> dict[str, Any]:
    """Return the shares that a linear classifier, fitted on training photos, recognises."""
    sets = {
        "val": (evidence.val_features, evidence.val.labels),
        "reconstructions": (evidence.val_made_features, evidence.val.labels),
        "samples": (evidence.sample_features, evidence.sample_labels),
    }
    shares: dict[str, dict[str, float]] = {name: {} for name in sets}
    overall: dict[str, float | None] = {f"recognised_{name}": None for name in sets}
    train = evidence.train
    if train is not None and len(train.labels.unique()) > 1:
        probe = fit_probe(
            evidence.features, train.labels, len(classes), weight_decay=PROBE_WEIGHT_DECAY
        )
        for name, (rows, labels) in sets.items():
            if rows is not None:
                found = recognised(probe, rows, labels, classes)
                overall[f"recognised_{name}"], shares[name] = found
    return {**overall, "recognised_by_class": shares}


def memorisation(
    samples: Nearest | None, val: Nearest | None, photos: PhotoSet, shown: int
) -> dict[str, Any]:
    """Return how near samples come to training photos, and how near held-out photos do.

    Args:
        samples, val: nearest training photos; None where there is nothing to compare.
        photos: the training photos.
        shown: samples to list one by one.
    """
    listed = []
    if samples is not None:
        pairs = zip(samples.index[:shown].tolist(), samples.distance.tolist(), strict=False)
        listed = [{"photo": photos.files[place], "distance": far} for place, far in pairs]
    return {
        "nearest_distance_samples": None if samples is None else samples.distance.median().item(),
        "nearest_distance_val": None if val is None else val.distance.median().item(),
        "nearest": listed,
    }
