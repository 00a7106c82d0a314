"""One of two processes that train together: `python ranks.py FOLDER`, named as torchrun does it.

Everything is done by one pair of processes, since their start takes longer than the runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

import tiny
from maskgit_core.data import shards
from maskgit_core.distributed.group import RankLostError, process_group, rank
from maskgit_core.training.loop import Stage, train
from runs import BUSY_FIRST, BUSY_SECOND, tokenizer_stage, transformer_stage

# Five images for two ranks: the parts are not equal.
TRANSFORMER = replace(BUSY_SECOND, batch_size=5)
TOKENIZER = replace(
    BUSY_FIRST,
    batch_size=5,
    adversarial_weight=0.2,
    adversarial_start=6,
    matrix_learning_rate=0.0,
)
# Wide enough for Muon's matrices; slices are of unequal and of no length.
SHARDED = replace(TRANSFORMER, shard="full")
WIDE = {"width": 20}
HALF = 7
KILLED = 8


def seeded(build: object, config: object) -> Stage:
    """A stage whose discriminator starts with the same weights every time."""
    torch.manual_seed(5)
    return build(config)


def extract(folder: Path) -> None:
    """Write five shards of two photos each."""
    shards.SHARD_PHOTOS = shards.ENCODE_BATCH = 2
    encoded: list[torch.Tensor] = []
    data = shards.extract_tokens(
        tiny.tokenizer(),
        tiny.photos(10),
        cache=folder / "tokens.safetensors",
        progress=lambda batches: encoded.extend(batches) or batches,
    )
    rows = torch.cat(encoded).tolist()
    (folder / f"encoded-{rank()}.json").write_text(json.dumps([rows, data.tokens[:, 1].tolist()]))


def stop(step: int, measures: dict[str, float]) -> None:
    """Send a signal to the second rank in the middle of a run."""
    if step == HALF - 1 and rank() == 1:
        os.kill(os.getpid(), signal.SIGTERM)


def share_weights(folder: Path) -> None:
    """Train with weights that are cut among the ranks."""
    config = SHARDED
    train(transformer_stage(config, **WIDE), config, folder / "sharded-class_token")
    parts = replace(config, grad_accum_steps=2, checkpoint_blocks=True)
    train(transformer_stage(parts, kind="adaln", **WIDE), parts, folder / "sharded-adaln")
    train(transformer_stage(config, **WIDE), config, folder / "sharded-then-one", report=stop)
    # Begun by one process before this pair was started.
    train(transformer_stage(config, **WIDE), config, folder / "one-then-sharded")


def main(folder: Path) -> None:
    extract(folder)
    config = TRANSFORMER
    train(transformer_stage(config), config, folder / "transformer")
    train(seeded(tokenizer_stage, TOKENIZER), TOKENIZER, folder / "tokenizer")
    pieces = replace(TOKENIZER, grad_accum_steps=2)
    train(seeded(tokenizer_stage, pieces), pieces, folder / "tokenizer-in-pieces")
    share_weights(folder)
    parts = replace(config, grad_accum_steps=2)
    train(transformer_stage(parts), parts, folder / "accumulated")

    step = train(transformer_stage(config), config, folder / "two-then-one", report=stop)
    (folder / f"stopped-{rank()}").write_text(str(step))
    # Begun by one process before this pair was started.
    train(transformer_stage(config), config, folder / "one-then-two")

    spoilt = transformer_stage(config)
    real, spoil = spoilt.loss, [True]

    def loss(step: int, part: object) -> object:
        value, measures = real(step, part)
        if step == HALF and rank() == 1 and spoil:
            spoil.clear()
            value = value * torch.nan
        return value, measures

    spoilt.loss = loss
    train(spoilt, config, folder / "spoilt")

    def die(step: int, measures: dict[str, float]) -> None:
        if step == KILLED and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    train(transformer_stage(config), config, folder / "killed", report=die)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        with process_group(torch.device("cpu"), silence=timedelta(seconds=240)):
            main(Path(sys.argv[1]))
    except RankLostError as error:
        print(error)
        sys.exit(3)
