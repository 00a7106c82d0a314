"""The evaluate command: a checkpoint and a folder of photos in, numbers and sheets out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.cli.sampling import (
    add_checkpoint_argument,
    add_sampling_arguments,
    sampling_config,
)

if TYPE_CHECKING:
    import torch

    from maskgit_core.evaluation.tables import EvaluatedModel

RESULTS_FOLDER = "runs/evaluate"
CACHE_FOLDER = "runs/cache"


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the evaluate command."""
    add_checkpoint_argument(parser)
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="holds train/ and val/ (validation, valid, test), each with one folder per class; or "
        "held-out photos alone",
    )
    for name, photos in (("--train", "training"), ("--val", "held-out")):
        parser.add_argument(
            name, default=None, metavar="DIR", help=f"{photos} photos, where not in --data"
        )
    parser.add_argument(
        "--num-samples", type=int, default=5000, help="samples; 0 measures the tokenizer only"
    )
    parser.add_argument(
        "--out",
        default=None,
        metavar="DIR",
        help=f"results and stored tables; {RESULTS_FOLDER}/<checkpoint> if unset",
    )
    parser.add_argument(
        "--cache-dir", default=CACHE_FOLDER, metavar="DIR", help="packed photos, their features"
    )
    parser.add_argument(
        "--features", default="lite0", help="feature network: lite0, lite2, inception"
    )
    parser.add_argument(
        "--neighbours", type=int, default=3, help="k of precision and recall (3 in the paper)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="samples drawn at once")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    add_sampling_arguments(parser)


def run_evaluate(args: argparse.Namespace) -> None:
    """Run the command: print the result as JSON, bars and hints on the error stream."""
    from maskgit_core.config import SamplingConfig
    from maskgit_core.data.folders import evaluation_folders
    from maskgit_core.distributed.group import local_device
    from maskgit_core.evaluation.evaluate import RESULT_FILE, evaluate
    from maskgit_core.evaluation.settings import EvaluationSettings
    from maskgit_core.inputs import folder_name

    device = local_device(args.device)
    model = _load_model(args.checkpoint, args.num_samples, device, args.precision)
    name = Path(args.checkpoint)
    out = Path(args.out) if args.out else Path(RESULTS_FOLDER) / "-".join(name.parts[-2:])
    try:
        result = evaluate(
            model,
            evaluation_folders(args.data, args.train, args.val),
            out,
            EvaluationSettings(
                args.num_samples,
                sampling_config(args, getattr(model, "sampling", SamplingConfig())),
                args.seed,
                args.neighbours,
                args.batch_size,
            ),
            features=args.features,
            cache_dir=args.cache_dir,
            device=device,
            progress=_bar,
            name=folder_name(args.checkpoint),
        )
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from what is in {out}", file=sys.stderr)
        raise
    print(json.dumps(result, indent=2, ensure_ascii=False))
    print(f"written to {out / RESULT_FILE}, with sheets beside it", file=sys.stderr)


def _load_model(
    checkpoint: str, num_samples: int, device: torch.device, precision: str
) -> EvaluatedModel:
    from maskgit_core.evaluation.tables import TokenizerModel
    from maskgit_core.pipeline import MaskGIT
    from maskgit_core.weights.checkpoint import load_checkpoint

    if num_samples == 0 and Path(checkpoint).is_dir():
        loaded = load_checkpoint(checkpoint)
        if loaded.transformer is None:
            return TokenizerModel(loaded.tokenizer.to(device), loaded.classes)
    return MaskGIT.from_pretrained(checkpoint, precision=precision).to(device)


def _bar(description: str, items: Sequence[Any]) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, desc=description, file=sys.stderr)
