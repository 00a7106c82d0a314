"""Measures of a checkpoint: its reconstructions of held-out photos, and its samples.

All images are taken as they would be saved, in 8 bit, and compared in the features of one network.
Photos on both sides are the centre crops that training sees. Whatever takes long is stored.

Distances are taken to all training photos: `gfd` of the samples, the same number from every class;
`rfd` of the reconstructions of as many training photos, drawn with classes as equal as possible;
`fd_floor` of those photos themselves: number and mix of classes alone cost that much, and new
images a little more, as these are training photos. `rfd_val` compares the reconstructions of
held-out photos with those photos. Precision and recall compare the samples with the same draw of
training photos, equal numbers on both sides. The classifier is fitted on training photos; its
shares are means over classes, not over images. Without training photos all of these are taken to
the held-out ones, and no classifier is fitted.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from maskgit_core.config import SamplingConfig, to_dict
from maskgit_core.data.folders import DataFolders
from maskgit_core.evaluation.data import check_folder, load_photo_set
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
from maskgit_core.evaluation.settings import EvaluationSettings
from maskgit_core.evaluation.sheets import NEAREST_SHOWN, save_sheets
from maskgit_core.evaluation.store import Progress, TableStore, no_progress
from maskgit_core.evaluation.tables import EvaluatedModel, Evidence, Tables, gather
from maskgit_core.files import write_atomically
from maskgit_core.losses import PerceptualLoss

FORMAT = 1
RESULT_FILE = "evaluation.json"
TABLES_FOLDER = "tables"


def evaluate(
    model: EvaluatedModel,
    folders: DataFolders,
    out: str | os.PathLike[str],
    settings: EvaluationSettings,
    *,
    features: str | FeatureNetwork = "lite0",
    perceptual: PairDistance | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    progress: Progress = no_progress,
    name: str = "",
) -> dict[str, Any]:
    """Measure a model and write `evaluation.json` and sheets; an interrupted run goes on.

    Args:
        model: the model; `transformer` and `generate` are needed where there are to be samples.
        folders: held-out photos, and those of training if there are any.
        out: folder of the results; its `tables/` keeps finished work and can be deleted.
        settings: what is drawn and compared.
        features: a network, or its name in `features.FEATURE_NETWORKS`.
        perceptual: distance float32 (B,) of pairs of images; None takes `losses.PerceptualLoss`.
        cache_dir: packed photos and their features, for several evaluations; `out/tables` if None.
        device: where the feature network runs.
        progress: wraps the steps of everything that takes long, see `store.Progress`.
        name: what the result calls the checkpoint.

    Returns:
        What is in `evaluation.json`: a measure that cannot be taken is None, and `notes` say why.

    Raises:
        ValueError: an unknown class, too few photos, or a feature network that is not installed.
        CheckpointError: the disk is full; finished shards survive.
    """
    for folder in filter(None, folders):
        check_folder(folder, model.classes, settings.least)
    network = build_features(features, device) if isinstance(features, str) else features
    perceptual, out = perceptual or PerceptualLoss(), Path(out)
    cache = Path(cache_dir or out / TABLES_FOLDER)
    if folders.val is None:
        raise ValueError("val must be a folder of held-out photos; got None")
    photos = (model, settings.least, cache, progress)
    val = load_photo_set(folders.val, *photos)
    train = load_photo_set(folders.train, *photos) if folders.train else None
    stores = (TableStore(folder, progress=progress) for folder in (cache, out / TABLES_FOLDER))
    tables = Tables(model, network, *stores)
    sampling = settings.sampling or getattr(model, "sampling", SamplingConfig())
    settings = replace(settings, sampling=sampling)
    evidence = gather(tables, val, train, settings)
    result = {
        **about(tables, evidence, settings, name),
        **compare_pairs(val, evidence.val_made, perceptual, progress),
        **compare_sets(evidence, model, settings, out, progress),
    }
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    write_atomically(out / RESULT_FILE, lambda path: Path(path).write_text(text, encoding="utf-8"))
    return result


def about(
    tables: Tables, evidence: Evidence, settings: EvaluationSettings, name: str
) -> dict[str, Any]:
    """Return what the measures depend on."""
    model, network, train = tables.model, tables.network, evidence.train
    sets = [photos.photos for photos in (evidence.val, train) if photos is not None]
    return {
        "format": FORMAT,
        "checkpoint": name,
        "image_size": model.image_size,
        "codebook_size": model.mask_token_id,
        "num_classes": len(model.classes),
        "settings": {
            **to_dict(settings),
            "sampling": to_dict(settings.sampling) if settings.num_samples else None,
            "precision": getattr(model, "precision", "float32"),
            "features": network.name,
            "feature_dim": network.dim,
            "feature_pixels": getattr(network, "input_size", None),
            "probe_weight_decay": PROBE_WEIGHT_DECAY,
            "reference": "val" if train is None else "train",
        },
        "counts": {
            "train": 0 if train is None else len(train),
            "val": len(evidence.val),
            "drawn": len(evidence.drawn),
            "samples": settings.num_samples,
            "skipped": sum(len(photos.skipped) for photos in sets),
        },
        "notes": notes(evidence, network.dim),
    }


def compare_sets(
    evidence: Evidence,
    model: EvaluatedModel,
    settings: EvaluationSettings,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Return the measures of whole sets of images, and write the sheets."""

    def pictures() -> dict[str, Any]:
        samples = val = None
        if evidence.train is not None:
            val = nearest_rows(evidence.val_features, evidence.features)
            if evidence.sample_features is not None:
                samples = nearest_rows(evidence.sample_features, evidence.features)
        recipe = {"task": "evaluate", "seed": settings.seed, **to_dict(settings.sampling)}
        sheets = save_sheets(out, evidence, samples, model.classes, recipe)
        return {
            **memorisation(samples, val, evidence.reference, NEAREST_SHOWN),
            "sheets": sheets,
        }

    parts = (
        lambda: code_use(evidence.val_tokens, model.mask_token_id),
        lambda: frechet_distances(evidence),
        lambda: manifold_shares(evidence, settings.neighbours),
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
