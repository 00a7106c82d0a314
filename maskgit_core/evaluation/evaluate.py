"""Measures of a checkpoint: its reconstructions of held-out photos, and its samples.

All images are taken as they would be saved, in 8 bit, and compared in the features of one network:
Fréchet distance, precision and recall, a linear classifier, nearest training photos. Photos on
both sides are the centre crops that training sees. Whatever takes long is stored in parts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from maskgit_core.config import MAX_SEED, SamplingConfig, check_range, to_dict
from maskgit_core.evaluation.data import PhotoSet, check_folder, find_data, load_photo_set
from maskgit_core.evaluation.distances import nearest_rows
from maskgit_core.evaluation.features import FeatureNetwork, build_features
from maskgit_core.evaluation.measures import (
    PROBE_WEIGHT_DECAY,
    PairDistance,
    code_use,
    compare_pairs,
    frechet_distances,
    manifold_shares,
    memorisation,
    recognition,
)
from maskgit_core.evaluation.sheets import NEAREST_SHOWN, save_sheets
from maskgit_core.evaluation.store import PartStore, Progress, no_progress
from maskgit_core.evaluation.tables import Bench, EvaluatedModel, Evidence, gather
from maskgit_core.losses import PerceptualLoss
from maskgit_core.weights.checkpoint import write_atomically

FORMAT = 1
RESULT_FILE = "evaluation.json"
PARTS_FOLDER = "parts"
DEFAULT_SAMPLES = 5000
MAX_SAMPLES = 1_000_000
NEIGHBOURS = 3


def evaluate(
    model: EvaluatedModel,
    data_dir: str | os.PathLike[str],
    *,
    num_samples: int = DEFAULT_SAMPLES,
    out: str | os.PathLike[str],
    sampling: SamplingConfig | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    features: str | FeatureNetwork = "lite0",
    perceptual: PairDistance | None = None,
    train_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    neighbours: int = NEIGHBOURS,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    name: str = "",
) -> dict[str, Any]:
    """Measure a model and write `evaluation.json` and sheets; an interrupted run goes on.

    Distances are taken to all training photos: `gfd` of `num_samples` samples, the same number
    from every class; `rfd` of the reconstructions of as many training photos, drawn with classes
    as equal as possible; `fd_floor` of those photos themselves: number and mix of classes alone
    cost that much, and new images a little more, as these are training photos. `rfd_val` compares
    the reconstructions of held-out photos with those photos. Precision and recall compare the
    samples with the same draw of training photos, equal numbers on both sides. The classifier is
    fitted on training photos; its shares are means over classes, not over images.
    Without training photos all of these are taken to the held-out ones, and no classifier is
    fitted.

    Args:
        model: the model; `transformer` and `generate` are needed where `num_samples` is not 0.
        data_dir: `train/` and `val/`, or held-out photos alone, see `evaluation_data.find_data`.
        num_samples: 0 measures the tokenizer only.
        out: folder of the results; its `parts/` keeps finished work and can be deleted.
        sampling: decoding settings; None takes the model's own.
        seed: of the samples, image i uses seed + i, and of the draw of training photos.
        progress: wraps the steps of every long part, see `evaluation_store.Progress`.
        features: name in `features.FEATURE_NETWORKS`, or a network.
        perceptual: distance float32 (B,) of pairs of images; None takes `losses.PerceptualLoss`.
        train_dir: training photos in another place than data_dir.
        cache_dir: packed photos and their features, shared by evaluations; None is `out/parts`.
        neighbours: k of precision and recall.
        batch_size: samples drawn at once.
        device: where the feature network runs.
        name: what the result calls the checkpoint.

    Returns:
        The content of `evaluation.json`; a measure that could not be taken is None, and `notes`
        says why.

    Raises:
        ValueError: a class that the model does not know, too few photos or samples, a setting out
            of range, or packages of the feature network that are not installed.
        CheckpointError: the disk is full; finished parts survive.
    """
    check_range("neighbours", neighbours, 1, 1000, whole=True)
    check_range("num_samples", num_samples, 0, MAX_SAMPLES, whole=True)
    least = neighbours + 1
    if 0 < num_samples < least:
        raise ValueError(
            f"num_samples must be 0 (tokenizer only) or at least {least}, the number that "
            f"precision and recall need; got {num_samples}"
        )
    check_range("seed", seed, 0, MAX_SEED - num_samples, whole=True)
    check_range("batch_size", batch_size, 1, whole=True)
    folders = find_data(data_dir, train_dir)
    for folder in filter(None, (folders.val, folders.train)):
        check_folder(folder, model.classes, least)
    network = build_features(features, device) if isinstance(features, str) else features
    perceptual = perceptual or PerceptualLoss()

    out, progress = Path(out), progress or no_progress
    cache = Path(cache_dir) if cache_dir is not None else out / PARTS_FOLDER

    def load(folder: Path) -> PhotoSet:
        return load_photo_set(
            folder,
            model.classes,
            model.image_size,
            least=least,
            cache_dir=cache,
            progress=progress,
        )

    val = load(folders.val)
    train = None if folders.train is None else load(folders.train)
    sampling = sampling or getattr(model, "sampling", None) or SamplingConfig()
    bench = Bench(
        model,
        network,
        shared=PartStore(cache, progress=progress),
        own=PartStore(out / PARTS_FOLDER, progress=progress),
    )
    evidence = gather(
        bench,
        val,
        train,
        num_samples=num_samples,
        num_drawn=num_samples or DEFAULT_SAMPLES,
        sampling=sampling,
        seed=seed,
        batch_size=batch_size,
    )
    settings = {
        "num_samples": num_samples,
        "seed": seed,
        "sampling": to_dict(sampling) if num_samples else None,
        "precision": getattr(model, "precision", "float32"),
        "features": network.name,
        "feature_dim": network.dim,
        "feature_pixels": getattr(network, "input_size", None),
        "neighbours": neighbours,
        "probe_weight_decay": PROBE_WEIGHT_DECAY,
        "reference": "val" if train is None else "train",
    }
    result = {
        "format": FORMAT,
        "checkpoint": name,
        "image_size": model.image_size,
        "codebook_size": model.mask_token_id,
        "num_classes": len(model.classes),
        "settings": settings,
        "counts": {
            "train": 0 if train is None else len(train),
            "val": len(val),
            "drawn": len(evidence.drawn),
            "samples": num_samples,
            "skipped": len(val.photos.skipped) + (len(train.photos.skipped) if train else 0),
        },
        "notes": notes(evidence, network.dim),
        **compare_pairs(val, evidence.val_made, perceptual, progress),
        **compare_sets(evidence, model, neighbours, out, progress),
    }
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    write_atomically(out / RESULT_FILE, lambda path: Path(path).write_text(text, encoding="utf-8"))
    return result


def compare_sets(
    evidence: Evidence, model: EvaluatedModel, neighbours: int, out: Path, progress: Progress
) -> dict[str, Any]:
    """Return the measures of whole sets of images, and write the sheets."""

    def pictures() -> dict[str, Any]:
        samples = val = None
        if evidence.train is not None:
            val = nearest_rows(evidence.val_features, evidence.features)
            if evidence.sample_features is not None:
                samples = nearest_rows(evidence.sample_features, evidence.features)
        sheets = save_sheets(out, evidence, samples, model.classes)
        return {
            **memorisation(samples, val, evidence.reference, NEAREST_SHOWN),
            "sheets": sheets,
        }

    parts = (
        lambda: code_use(evidence.val_tokens, model.mask_token_id),
        lambda: frechet_distances(evidence),
        lambda: manifold_shares(evidence, neighbours),
        lambda: recognition(evidence, model.classes),
        pictures,
    )
    result: dict[str, Any] = {}
    for part in progress("compare sets", parts):
        result |= part()
    return result


def notes(evidence: Evidence, dim: int) -> list[str]:
    """Return what a reader of the numbers has to know about this very evaluation."""
    found = []
    if evidence.train is None:
        found.append(
            "no training photos were given: distances are to the held-out photos, and there is "
            "no classifier and no search for the nearest training photo"
        )
    elif len(evidence.train.labels.unique()) < 2:
        found.append("a classifier needs training photos of two classes; there is one")
    if len(evidence.drawn) == len(evidence.reference):
        found.append("every reference photo was drawn: fd_floor is 0 and no floor for samples")
    counts = {
        "reference photos": len(evidence.reference),
        "reconstructions": len(evidence.drawn),
        "val photos": len(evidence.val),
        "samples": len(evidence.sample_labels),
    }
    few = [f"{count} {what}" for what, count in counts.items() if 0 < count <= dim]
    if few:
        found.append(
            f"a distance of {dim} features from {dim} images or fewer depends strongly on their "
            f"number, compare equal numbers only: {', '.join(few)}"
        )
    return found
