"""What the train command leaves behind: checkpoint, sample sheet, measures, model card."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from maskgit_core.data.contact_sheet import contact_sheet
from maskgit_core.data.folders import DataFolders, training_folders
from maskgit_core.data.photos import Photos
from maskgit_core.evaluation.evaluate import EvaluationSettings, evaluate
from maskgit_core.files import write_all_atomically
from maskgit_core.pipeline import MaskGIT
from maskgit_core.pixels import to_uint8
from maskgit_core.training.model_card import CardFacts, StageFacts, model_card
from maskgit_core.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from maskgit_core.training.choices import Choices

SAMPLES_A_CLASS = 6
MOST_CLASSES = 12
MEASURES = ("psnr", "ssim", "rfd_val", "gfd", "precision", "recall")


def write_results(
    out: Path,
    *,
    photos: Photos,
    held_out: Photos | None,
    data: str,
    val: str | None = None,
    num_samples: int,
    choices: Choices,
    stages: dict[str, dict[str, Any]],
    notes: list[str],
    device: torch.device,
    losses: tuple[float, float] | None,
) -> None:
    """Write `checkpoint/` in the folder of a run whose stages are done.

    Raises:
        CheckpointError: weights cannot be read, or the disk is full.
    """
    loaded = load_checkpoint(out / "transformer" / "checkpoint")
    model = MaskGIT(loaded, out.name).to(device)
    target = out / "checkpoint"
    save_checkpoint(
        target,
        tokenizer=loaded.tokenizer,
        transformer=loaded.transformer,
        classes=loaded.classes,
        sampling=loaded.sampling,
        dtype=torch.float16,
    )
    names = photos.classes[:MOST_CLASSES]
    labels = [name for name in names for _ in range(SAMPLES_A_CLASS)]
    print("drawing samples", file=sys.stderr)
    samples = model.generate(labels=labels, config=loaded.sampling, seed=0).images
    sheet = contact_sheet(to_uint8(samples), SAMPLES_A_CLASS, gap=2)
    folders = training_folders(data, val)
    measures, found = _measures(model, folders, out, num_samples, len(names))
    facts = _facts(out, loaded, photos, held_out, choices, stages)
    card = model_card(
        replace(
            facts,
            measures=measures,
            notes=[*notes, *found],
            losses=losses,
            device="a GPU" if device.type == "cuda" else "CPU cores",
        )
    )
    write_all_atomically(
        {
            target / "samples.jpg": lambda path: sheet.save(path, "JPEG", quality=90),
            target / "README.md": lambda path: Path(path).write_text(card, encoding="utf-8"),
        }
    )


def _measures(
    model: MaskGIT, folders: DataFolders, out: Path, num_samples: int, num_classes: int
) -> tuple[dict[str, float], list[str]]:
    """Return measures of `evaluate`, and sentences on what they mean or why there are none."""
    if num_samples == 0:
        return {}, []
    try:
        result = evaluate(
            model,
            folders if folders.val else DataFolders(None, folders.train),
            out / "evaluation",
            EvaluationSettings(max(num_samples, num_classes)),
            cache_dir=out / "cache",
            device=model.device,
            progress=lambda text, items: tqdm(items, desc=text, file=sys.stderr),
        )
    except ValueError as error:
        return {}, [f"Not evaluated: {error}."]
    notes = [f"{num_samples} samples: distances of so few are large for that reason alone."]
    if folders.val is None:
        notes.append("Measured on the folder that it was trained on, so too good to be true.")
    return {name: result[name] for name in MEASURES if result.get(name) is not None}, notes


def _facts(
    out: Path,
    loaded: Checkpoint,
    photos: Photos,
    held_out: Photos | None,
    choices: Choices,
    stages: dict[str, dict[str, Any]],
) -> CardFacts:
    preset, shape = choices.preset, loaded.tokenizer.config
    begun = str(choices.init or choices.tokenizer or "random weights")
    # Names only: a path of this machine tells nobody else anything.
    begun = Path(begun).name if Path(begun).is_dir() else begun
    told = []
    for name, network in (("tokenizer", loaded.tokenizer), ("transformer", loaded.transformer)):
        trained = stages.get(name, {})
        fresh = name == "transformer" and choices.init is None
        told.append(
            StageFacts(
                name,
                sum(p.numel() for p in network.parameters()),
                "random weights" if fresh else begun,
                int(trained.get("steps", 0)),
                getattr(preset, f"{name}_training").batch_size if trained else 0,
            )
        )
    counts = torch.bincount(photos.labels, minlength=len(photos.classes)).tolist()
    return CardFacts(
        title=out.name,
        image_size=shape.image_size,
        grid_size=shape.grid_size,
        codebook_size=shape.codebook_size,
        counts=dict(zip(photos.classes, counts, strict=True)),
        held_out=len(held_out.labels) if held_out is not None else 0,
        preset=preset.name,
        stages=told,
        minutes=sum(stage.get("seconds", 0.0) for stage in stages.values()) / 60,
        command="python -m maskgit_core train --data FOLDER --out DIR"
        + (f" --init {begun}" if choices.init else f" --preset {preset.name}"),
    )
