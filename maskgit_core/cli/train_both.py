"""The run of the train command: both stages, samples, evaluation and model card."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.training.choices import Choices

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskgit_core.data.photos import Photos
    from maskgit_core.training.transformer_stage import TransformerStage
    from maskgit_core.weights.checkpoint import Checkpoint

TOKENIZER_SHARE = 0.4  # of the time budget, where both stages are trained


class Training:
    """Both stages, samples, evaluation and model card of one run.

    Args:
        args: options of the command.
        choices: what to do.
        run: remembers what was decided and done.
        out: folder of the run.
        device: where everything is computed.
    """

    def __init__(
        self, args: argparse.Namespace, choices: Choices, run: Any, out: Path, device: torch.device
    ) -> None:
        self.args, self.choices, self.run, self.out = args, choices, run, out
        self.device = device
        self.cache = out / "cache"
        self.given: Checkpoint | None = None
        self.notes: list[str] = []
        self.losses: tuple[float, float] | None = None
        self.spent = 0.0  # seconds on reading and extracting, which the budget covers too

    def prepare(self, classes: Sequence[str]) -> list[str]:
        """Load and adapt what is gone on from; returns what became of it, one sentence each.

        Args:
            classes: of the data.

        Raises:
            ValueError, CheckpointError: it cannot be read, or does not fit; nothing is written.
        """
        from maskgit_core.training.fine_tuning import (
            adapted_tokenizer,
            adapted_transformer,
            merged_classes,
        )
        from maskgit_core.weights.checkpoint import load_checkpoint
        from maskgit_core.weights.hub import resolve_checkpoint

        choices = self.choices
        if not choices.tokenizer:
            return []
        given = load_checkpoint(resolve_checkpoint(choices.tokenizer))
        if choices.init and given.transformer is None:
            raise ValueError(f"init must hold a transformer; {choices.init} has none")
        tokenizer = given.tokenizer
        notes: list[str] = []
        if choices.image_size is not None:
            tokenizer, notes = adapted_tokenizer(tokenizer, choices.image_size)
        transformer = None
        if choices.init:
            merged = merged_classes(given.classes, classes, keep=choices.keep_classes)
            grid, seed = tokenizer.config.grid_size, choices.preset.transformer_training.seed
            assert given.transformer is not None  # as was asked above
            transformer, told = adapted_transformer(
                given.transformer, given.classes, merged, grid, seed
            )
            notes, given = notes + told, replace(given, classes=merged)
        self.given = replace(given, tokenizer=tokenizer, transformer=transformer)
        self.notes += notes
        return notes

    def run_all(self) -> None:
        """Train what is to be trained and write the checkpoint."""
        from maskgit_core.distributed.group import is_first, patience

        given = self.given
        shape = given.tokenizer.config if given else self.choices.preset.tokenizer
        photos, held_out = self._photos(shape.image_size)
        tokenizer = given.tokenizer if given else self._train_tokenizer(photos, held_out)
        self._train_transformer(tokenizer.requires_grad_(False), photos, held_out)
        with patience():
            if is_first():
                self._finish(photos, held_out)

    def _photos(self, image_size: int) -> tuple[Photos, Photos | None]:
        from maskgit_core.cli.data import load_photos
        from maskgit_core.data.checks import check_readable
        from maskgit_core.training.fine_tuning import set_aside

        where = argparse.Namespace(data=self.args.data, val=self.args.val, cache=self.cache)
        begin = time.monotonic()
        photos, held_out = load_photos(where, image_size)
        self.spent += time.monotonic() - begin
        unreadable = check_readable(photos)
        for sentence in unreadable:
            print(sentence)
        self.notes += unreadable
        return (photos, held_out) if held_out is not None else set_aside(photos)

    def _train_tokenizer(self, photos: Photos, held_out: Photos | None) -> nn.Module:
        import torch

        from maskgit_core.networks.tokenizer import VQTokenizer
        from maskgit_core.training.tokenizer_stage import TokenizerStage
        from maskgit_core.weights.checkpoint import load_checkpoint

        config = self.choices.preset.tokenizer_training
        torch.manual_seed(config.seed)
        model = VQTokenizer(self.choices.preset.tokenizer)
        try:
            stage = TokenizerStage(model, photos, held_out, config, self.device)
        except ValueError as error:
            if not config.perceptual_weight:
                raise
            self.notes.append(f"The tokenizer was trained without the perceptual loss: {error}.")
            config = replace(config, perceptual_weight=0.0, discriminator="patches")
            stage = TokenizerStage(model, photos, held_out, config, self.device)
        self._stage("tokenizer", stage, config, len(photos.labels), TOKENIZER_SHARE)
        return load_checkpoint(self.out / "tokenizer" / "checkpoint").tokenizer

    def _train_transformer(
        self, tokenizer: nn.Module, photos: Photos, held_out: Photos | None
    ) -> None:
        import torch

        from maskgit_core.cli.train_stage import started_from
        from maskgit_core.cli.train_transformer import new_transformer
        from maskgit_core.distributed.group import is_first
        from maskgit_core.training.fine_tuning import labels_in
        from maskgit_core.training.transformer_stage import TransformerStage

        preset, given = self.choices.preset, self.given
        config, classes, sampling = preset.transformer_training, photos.classes, preset.sampling
        torch.manual_seed(config.seed)
        if given is not None and given.transformer is not None and self.choices.init:
            model, classes, sampling = given.transformer, given.classes, given.sampling
        else:
            shape = {
                "codebook_size": tokenizer.config.codebook_size,
                "grid_size": tokenizer.config.grid_size,
                "num_classes": len(classes),
            }
            model = new_transformer(replace(preset.transformer, **shape), tokenizer, config.seed)
        labels = torch.tensor(labels_in(classes, photos.classes))
        tokenizer.to(self.device)
        data = self._tokens(tokenizer, photos, "train", labels, classes)
        val = held_out and self._tokens(tokenizer, held_out, "val", labels, classes)
        model = model.train().requires_grad_(True)
        stage = TransformerStage(model, tokenizer, data, val or None, config, sampling, self.device)
        stage.made_from |= started_from(self.choices.init)
        share = 1.0 if self.choices.tokenizer else 1 - TOKENIZER_SHARE
        self._stage("transformer", stage, config, len(photos.labels), share)
        if is_first():
            self.losses = _losses(self.out / "transformer", stage)

    def _tokens(
        self,
        tokenizer: nn.Module,
        photos: Photos,
        name: str,
        labels: torch.Tensor,
        classes: list[str],
    ) -> Any:
        from tqdm import tqdm

        from maskgit_core.data.shards import extract_tokens

        begin = time.monotonic()
        found = extract_tokens(
            tokenizer,
            photos,
            crops=self.choices.preset.data.crops,
            cache=self.cache / f"tokens-{name}.safetensors",
            progress=lambda batches: tqdm(batches, desc="extracting tokens", unit="batch"),
        )
        self.spent += time.monotonic() - begin
        return replace(found, labels=labels[found.labels], classes=classes)

    def _stage(self, name: str, stage: Any, config: Any, num_images: int, share: float) -> None:
        from maskgit_core.cli.train_stage import step_report
        from maskgit_core.distributed.group import is_first, wait
        from maskgit_core.training.budget import train_stage

        if is_first():
            print(f"training the {name}", file=sys.stderr, flush=True)
        train_stage(
            name,
            stage,
            config,
            self.run,
            self.out / name,
            num_images=num_images,
            # At least half of its share: reading slowly must not leave nothing to learn in.
            seconds=max(
                share * self.choices.seconds / 2, share * self.choices.seconds - self.spent
            ),
            reporting=step_report,
        )
        wait()  # until the first rank has written what all of them read next

    def _finish(self, photos: Photos, held_out: Photos | None) -> None:
        """Write the checkpoint with samples, measures and model card."""
        from maskgit_core.training.results import write_results

        print("drawing samples", file=sys.stderr)
        write_results(
            self.out,
            photos=photos,
            held_out=held_out,
            data=self.args.data,
            val=self.args.val,
            num_samples=self.args.samples,
            given=given_options(self.args, self.choices),
            choices=self.choices,
            stages=self.run.stages,
            notes=self.notes,
            device=self.device,
            losses=self.losses,
        )


def given_options(args: argparse.Namespace, choices: Choices) -> list[str]:
    """Return the words of the command line that made the model what it is.

    Folders keep their names only: a path of this machine tells nobody else anything.
    """
    words = ["--preset", choices.preset.name]
    for name in ("init", "tokenizer"):
        if value := getattr(args, name) or (name == "init" and choices.init):
            path = Path(value)
            words += [f"--{name}", path.name if path.is_dir() else str(value)]
    if args.image_size is not None:
        words += ["--image-size", str(args.image_size)]
    if args.keep_classes is not None:
        words.append("--keep-classes" if args.keep_classes else "--no-keep-classes")
    if choices.seconds < math.inf:
        words += ["--minutes", f"{choices.seconds / 60:g}"]
    elif args.minutes is not None:
        words += ["--minutes", "0"]
    words += [word for setting in args.set for word in ("--set", setting)]
    return [shlex.quote(word) for word in [*words, "--samples", str(args.samples)]]


def _losses(folder: Path, stage: TransformerStage) -> tuple[float, float] | None:
    """Return the cross-entropy on (training, held-out) photos; None where none were set aside.

    The loss in the log is another number: it holds smoothing and dropped classes.
    """
    from maskgit_core.training.transformer_stage import TransformerStage
    from maskgit_core.weights.checkpoint import load_checkpoint

    data, val = stage.data, stage.held_out
    if val is data:
        return None
    model = load_checkpoint(folder / "checkpoint").transformer
    assert model is not None  # this run wrote it
    some = slice(0, None, max(1, len(data.labels) // len(val.labels)))
    seen = replace(data, tokens=data.tokens[some, 0].unsqueeze(1), labels=data.labels[some])
    found = [
        TransformerStage(
            model, stage.tokenizer, part, None, stage.config, device=stage.device
        ).metrics(model)
        for part in (seen, val)
    ]
    return found[0]["val_cross_entropy"], found[1]["val_cross_entropy"]
