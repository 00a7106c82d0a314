"""The info command: a checkpoint in, its facts out."""

from __future__ import annotations

import argparse
import json

from maskgit_core.cli.sampling import add_checkpoint_argument
from maskgit_core.config import to_dict


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the info command."""
    add_checkpoint_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_info(args: argparse.Namespace) -> None:
    """Run the command: what a checkpoint holds, as lines or as JSON.

    Raises:
        CheckpointError: missing or damaged weights.
    """
    from maskgit_core.weights.checkpoint import load_checkpoint
    from maskgit_core.weights.hub import resolve_checkpoint

    folder = resolve_checkpoint(args.checkpoint)
    model = load_checkpoint(folder)  # may hold a tokenizer alone, which is no model to sample from
    shape, transformer = model.tokenizer.config, model.transformer
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    facts = {
        "checkpoint": str(args.checkpoint),
        "megabytes": round(size / 1e6, 1),
        "image_size": shape.image_size,
        "grid_size": shape.grid_size,
        "codebook_size": shape.codebook_size,
        "tokenizer_parameters": sum(p.numel() for p in model.tokenizer.parameters()),
        "transformer_parameters": sum(p.numel() for p in transformer.parameters())
        if transformer
        else 0,
        "classes": model.classes,
        "sampling": to_dict(model.sampling),
    }
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name.replace('_', ' ')}: {shown}")
