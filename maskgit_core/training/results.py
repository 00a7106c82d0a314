"""What the train command leaves behind: checkpoint, sample sheet, measures, model card."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from tqdm import tqdm

from maskgit_core.data.contact_sheet import contact_sheet
from maskgit_core.data.folders import DataFolders, training_folders
from maskgit_core.data.image_files import write_image
from maskgit_core.data.photos import Photos
from maskgit_core.evaluation.evaluate import evaluate
from maskgit_core.evaluation.settings import EvaluationSettings
from maskgit_core.files import write_all_atomically
from maskgit_core.pipeline import MaskGIT
from maskgit_core.pixels import to_uint8
from maskgit_core.recipes import generate_recipe
from maskgit_core.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from maskgit_core.training.choices import Choices

SAMPLES_A_CLASS = 6
MOST_CLASSES = 12
MEASURES = ("psnr", "ssim", "rfd_val", "gfd", "precision", "recall")
# Loss on held-out photos this far above that on training photos, in nats: learned by heart.
OVERFIT_NATS = 0.3


@dataclass(frozen=True)
class StageFacts:
    """What is told of one trained network.

    Attributes:
        name: `tokenizer` or `transformer`.
        parameters: of the network.
        origin: where its first weights came from.
        steps, batch_size: of the training; 0 steps where it was kept as it is.
    """

    name: str
    parameters: int
    origin: str
    steps: int = 0
    batch_size: int = 0


@dataclass(frozen=True)
class CardFacts:
    """Everything that a model card tells.

    Attributes:
        title: of the model.
        image_size: pixels a side.
        grid_size: tokens a side.
        codebook_size: codes.
        counts: photos of each class that were trained on.
        held_out: photos set aside.
        preset: settings that it began with.
        stages: in order.
        minutes: that both stages took, on `device`.
        device: in words.
        losses: cross-entropy in nats of (training, held-out) photos, where known.
        measures: name and value of each measure of `evaluate`.
        notes: sentences on data and measures.
        command: that repeats the training.
    """

    title: str
    image_size: int
    grid_size: int
    codebook_size: int
    counts: dict[str, int]
    held_out: int
    preset: str
    stages: Sequence[StageFacts]
    minutes: float
    device: str = ""
    losses: tuple[float, float] | None = None
    measures: dict[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    command: str = ""


def overfits(losses: tuple[float, float] | None) -> bool:
    """Whether held-out photos are predicted clearly worse than training photos."""
    return losses is not None and losses[1] - losses[0] > OVERFIT_NATS


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown."""
    classes = "\n".join(f"| {_cell(name)} | {count} |" for name, count in facts.counts.items())
    stages = "\n".join(
        f"| {stage.name} | {stage.parameters / 1e6:.2f} M | {stage.origin} | "
        f"{stage.steps or 'kept as it is'} | {stage.batch_size or ''} |"
        for stage in facts.stages
    )
    parts = [
        f"# {facts.title}",
        (
            f"A MaskGIT of {facts.image_size} x {facts.image_size} pixels, {facts.grid_size} x "
            f"{facts.grid_size} tokens and {facts.codebook_size:,} codes, trained with the preset "
            f"{facts.preset} in {facts.minutes:.0f} minutes on {facts.device}."
        ),
        (
            "| network | parameters | began with | steps | batch |\n"
            f"|---|---:|---|---:|---:|\n{stages}"
        ),
        "## Data",
        f"{sum(facts.counts.values())} photos to learn from, {facts.held_out} set aside to check.",
        f"| class | photos |\n|---|---:|\n{classes}",
        (
            "Rights in the photos stay with their owners: know their terms before you publish or "
            "sell what the model makes."
        ),
        "## What it measures",
    ]
    if facts.losses is not None:
        seen, new = facts.losses
        where = "photos set aside" if facts.held_out else "the training photos again"
        parts.append(
            f"Cross-entropy of hidden tokens: {seen:.2f} nats on training photos, {new:.2f} on "
            f"{where}."
        )
    if facts.measures:
        rows = "\n".join(f"| {name} | {value:.3g} |" for name, value in facts.measures.items())
        parts.append(f"| measure | value |\n|---|---:|\n{rows}")
    parts += [f"- {note}" for note in facts.notes]
    parts.append("## Limits")
    total = sum(facts.counts.values())
    if overfits(facts.losses):
        parts.append(
            "It has learned its photos by heart: new photos are predicted clearly worse than those "
            "it was trained on, and samples will resemble single training photos."
        )
    elif total < 1000:
        parts.append(
            f"{total} photos are few: expect samples that resemble single training photos."
        )
    parts.append("It has not been checked for anything but what is written here.")
    if facts.command:
        parts += ["## Training", f"    {facts.command}"]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write_results(
    out: Path,
    *,
    photos: Photos,
    held_out: Photos | None,
    data: str,
    val: str | None,
    num_samples: int,
    given: Sequence[str],
    choices: Choices,
    stages: dict[str, dict[str, Any]],
    notes: list[str],
    device: torch.device,
    losses: tuple[float, float] | None,
) -> None:
    """Write `checkpoint/` in the folder of a run whose stages are done.

    Args:
        out: the folder.
        photos, held_out: what it learned from and what was set aside.
        data, val: options of the command, for the evaluation.
        num_samples: for it; 0 evaluates nothing.
        given: words of the command line that made the model what it is, for its card.
        choices: what was decided from them.
        stages: steps and seconds of each.
        notes: sentences for the card.
        device: where everything is computed.
        losses: cross-entropy in nats of (training, held-out) photos, where known.

    Raises:
        CheckpointError: weights cannot be read, or the disk is full.
    """
    target, loaded = out / "checkpoint", load_checkpoint(out / "transformer" / "checkpoint")
    model = MaskGIT(loaded, out.name).to(device)
    save_checkpoint(
        target,
        tokenizer=loaded.tokenizer,
        transformer=loaded.transformer,
        classes=loaded.classes,
        sampling=loaded.sampling,
        dtype=torch.float16,
    )
    names = photos.classes[:MOST_CLASSES]
    sheet, recipe = _samples(model, names)
    measures, found = _measures(model, training_folders(data, val), out, num_samples, len(names))
    facts = replace(
        _facts(out, loaded, photos, held_out, choices, stages),
        measures=measures,
        command=" ".join(["python -m maskgit_core train --data FOLDER --out DIR", *given]),
        notes=[*notes, *found],
        losses=losses,
        device="a GPU" if device.type == "cuda" else "CPU cores",
    )
    card = model_card(facts)
    write_all_atomically(
        {
            target / "samples.jpg": lambda path: write_image(
                sheet, path, "JPEG", recipe, quality=90, subsampling="4:2:0"
            ),
            target / "README.md": lambda path: Path(path).write_text(card, encoding="utf-8"),
        }
    )


def _samples(model: MaskGIT, names: Sequence[str]) -> tuple[Image.Image, dict[str, Any]]:
    labels = [name for name in names for _ in range(SAMPLES_A_CLASS)]
    images = model.generate(labels=labels, config=model.sampling, seed=0).images
    recipe = generate_recipe(model.name, labels, 0, model.sampling)
    return contact_sheet(to_uint8(images), SAMPLES_A_CLASS, gap=2), recipe


def _measures(
    model: MaskGIT, folders: DataFolders, out: Path, num_samples: int, num_classes: int
) -> tuple[dict[str, float], list[str]]:
    """Return measures of `evaluate`, and sentences on what they mean or why there are none."""
    if num_samples == 0:
        return {}, []
    # At least one of each, and as many as precision and recall need.
    num_samples = max(num_samples, num_classes, EvaluationSettings(0).least)
    try:
        result = evaluate(
            model,
            folders if folders.val else DataFolders(None, folders.train),
            out / "evaluation",
            EvaluationSettings(num_samples),
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
    assert loaded.transformer is not None
    for name, network in (("tokenizer", loaded.tokenizer), ("transformer", loaded.transformer)):
        trained = stages.get(name, {})
        fresh = name == "transformer" and choices.init is None
        told.append(
            StageFacts(
                name,
                sum(p.numel() for p in network.parameters()) if network is not None else 0,
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
    )
