"""Two tiny checkpoints that differ in everything a page shows, and a menu of them."""

from __future__ import annotations

import time
from pathlib import Path

import torch

import tiny
from browser_model import CLASSES, SlowMaskGIT
from browser_model import tiny_model as first_model
from demo.serving.catalogue import ModelEntry
from demo.serving.models import ModelHolder
from maskgit_core import MaskGIT, SamplingConfig
from maskgit_core.hub_client import FetchError
from maskgit_core.networks.bert import BertConfig, BertTransformer
from maskgit_core.weights.checkpoint import load_checkpoint, save_checkpoint
from maskgit_core.weights.progress import Progress

FIRST, SECOND = "garden", "animals"
ANIMALS = ["cat", "dog", "sea", "tiger shark", "zebra"]
SECOND_SAMPLING = SamplingConfig(
    num_steps=4, order="halton", guidance_scale=1.0, guidance_schedule="constant"
)


def write_models(root: Path) -> tuple[Path, Path]:
    """A model with guidance, and one of other classes without a null class."""
    first = first_model(grid_size=4, codebook_size=32)
    save_checkpoint(
        root / FIRST,
        tokenizer=first.tokenizer,
        transformer=first.transformer,
        classes=list(CLASSES),
    )
    torch.manual_seed(1)
    config = BertConfig(
        codebook_size=32,
        num_classes=len(ANIMALS),
        grid_size=4,
        width=16,
        depth=1,
        num_heads=2,
        mlp_width=32,
    )
    save_checkpoint(
        root / SECOND,
        tokenizer=tiny.tokenizer(1),
        transformer=BertTransformer(config).eval(),
        classes=list(ANIMALS),
        sampling=SECOND_SAMPLING,
    )
    return root / FIRST, root / SECOND


def load_slow(folder: Path, name: str) -> MaskGIT:
    """A model whose steps can be watched."""
    model = SlowMaskGIT(load_checkpoint(folder), name)
    model.pause = 0.05
    return model


def holder(root: Path, **options: object) -> ModelHolder:
    """The first model in use, and a menu of both, a missing, a damaged and an endless one."""
    folders = write_models(root)
    (root / "damaged").mkdir()
    (root / "damaged" / "config.json").write_text("{")
    entries = [
        *(ModelEntry(folder.name, str(folder)) for folder in folders),
        ModelEntry("missing", "missing"),
        ModelEntry("damaged", str(root / "damaged")),
        ModelEntry("slow", "slow"),
    ]
    return ModelHolder(
        load_slow(folders[0], FIRST),
        entries,
        source=folders[0],
        fetch=fetch_local,
        load=load_slow,
        **options,
    )


def fetch_local(source: str, *, progress: Progress) -> Path:
    """What stands in for a download; `missing` fails as the Hub would, `slow` never ends."""
    if source == "missing":
        raise FetchError("missing", "there is no Hub repository some/where (404)")
    if source == "slow":
        progress.expect("file", 100_000_000)
        progress.advance("file", 25_000_000)
        while True:
            progress.check()
            time.sleep(0.02)
    return Path(source)
