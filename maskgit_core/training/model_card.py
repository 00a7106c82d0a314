"""The README.md of a checkpoint that somebody trained: what it is, from what, how good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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
        f"A MaskGIT of {facts.image_size} x {facts.image_size} pixels, {facts.grid_size} x "
        f"{facts.grid_size} tokens and {facts.codebook_size:,} codes, trained with the preset "
        f"{facts.preset} in {facts.minutes:.0f} minutes on {facts.device}.",
        "| network | parameters | began with | steps | batch |\n"
        f"|---|---:|---|---:|---:|\n{stages}",
        "## Data",
        f"{sum(facts.counts.values())} photos to learn from, {facts.held_out} set aside to check.",
        f"| class | photos |\n|---|---:|\n{classes}",
        "Rights in the photos stay with their owners: know their terms before you publish or sell "
        "what the model makes.",
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
