"""The train command: a folder of photos in, a model of them out, ready for the page."""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskgit_core.cli.options import add_data_arguments, add_preset_arguments
from maskgit_core.training.choices import CPU_MINUTES, Choices, choose

if TYPE_CHECKING:
    import torch
    from torch import nn

    from maskgit_core.data.photos import Photos
    from maskgit_core.training.transformer_stage import TransformerStage
    from maskgit_core.weights.checkpoint import Checkpoint

TOKENIZER_SHARE = 0.4  # of the time budget, where both stages are trained


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the train command."""
    add_data_arguments(parser)
    parser.add_argument(
        "--minutes",
        type=float,
        default=None,
        help=f"training time in all, {CPU_MINUTES:g} on a CPU if unset; 0 takes the preset's steps",
    )
    parser.add_argument(
        "--init",
        default=None,
        metavar="CHECKPOINT",
        help="model to go on from: folder, known name, or none; if unset, the shipped one for few "
        "photos on a CPU",
    )
    parser.add_argument(
        "--keep-classes",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="keep the classes of --init that the data does not show; yes where --init is given",
    )
    parser.add_argument(
        "--tokenizer",
        default=None,
        metavar="CHECKPOINT",
        help="keep this tokenizer and train the transformer only",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        default=None,
        metavar="N",
        help="pixels a side, also of what is gone on from: tables of its grid are interpolated",
    )
    parser.add_argument(
        "--samples", type=int, default=60, help="samples for the evaluation; 0 evaluates nothing"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    add_preset_arguments(parser)


def run_train(args: argparse.Namespace) -> None:
    """Run the command."""
    from maskgit_core.cli.data import data_folders, fetch_data
    from maskgit_core.data.checks import check_data
    from maskgit_core.distributed.group import local_device
    from maskgit_core.training.budget import Interrupted, RunFile
    from maskgit_core.training.run import data_share

    logging.getLogger("maskgit_core.data.photos").setLevel(
        logging.ERROR
    )  # told in one sentence below
    started, out = time.monotonic(), Path(args.out)
    device = local_device(args.device)
    fetch_data(args)
    files, warnings = check_data(data_folders(args)[0])
    choices = choose(args, len(files.files), device.type)
    settings = {
        "preset": choices.preset.name,
        "set": [*args.set, *([f"image_size={size}"] if (size := args.image_size) else [])],
        "init": str(choices.init) if choices.init else "none",
        "tokenizer": choices.tokenizer or "trained",
        "keep_classes": choices.keep_classes,
        "minutes": choices.seconds / 60 if choices.seconds < math.inf else 0,
        "classes": files.classes,
        "photos": len(files.files),
    }
    run = RunFile.open(out, settings)
    training = Training(args, choices, run, out, device)
    notes = training.prepare(files.classes)
    for sentence in (*warnings, *_intention(choices, len(files.files), files.classes), *notes):
        print(sentence)
    try:
        training.run_all()
    except Interrupted:
        print(f"stopped; the same command goes on. What there is lies in {out}")
        return
    for name in run.stages:
        if (share := data_share(out / name)) is not None:
            print(f"{name}: making batches took {100 * share:.1f} % of the training time")
    print(f"finished after {(time.monotonic() - started) / 60:.0f} minutes. To see it:")
    print(f"    python app.py --checkpoint {out / 'checkpoint'}")


def _intention(choices: Choices, num_images: int, classes: Sequence[str]) -> list[str]:
    text = f"{num_images} photos in {len(classes)} classes, preset {choices.preset.name}: "
    if choices.init:
        text += f"the transformer of {choices.init} learns them, its tokenizer stays as it is"
    elif choices.tokenizer:
        text += f"a new transformer is trained on the tokenizer of {choices.tokenizer}"
    else:
        text += "tokenizer and transformer are trained from nothing"
    limit = choices.seconds / 60
    until = "the preset's steps" if math.isinf(limit) else f"about {limit:g} minutes of training"
    return [f"{text}; {until}. Ctrl-C stops cleanly, the same command goes on."]


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
        tokenizer, notes = given.tokenizer, []
        if choices.image_size is not None:
            tokenizer, notes = adapted_tokenizer(tokenizer, choices.image_size)
        transformer = None
        if choices.init:
            merged = merged_classes(given.classes, classes, keep=choices.keep_classes)
            grid, seed = tokenizer.config.grid_size, choices.preset.transformer_training.seed
            transformer, told = adapted_transformer(
                given.transformer, given.classes, merged, grid, seed
            )
            notes, given = notes + told, replace(given, classes=merged)
        self.given = replace(given, tokenizer=tokenizer, transformer=transformer)
        self.notes += notes
        return notes

    def run_all(self) -> None:
        """Train what is to be trained and write the checkpoint."""
        given = self.given
        shape = given.tokenizer.config if given else self.choices.preset.tokenizer
        photos, held_out = self._photos(shape.image_size)
        tokenizer = given.tokenizer if given else self._train_tokenizer(photos, held_out)
        self._train_transformer(tokenizer.requires_grad_(False), photos, held_out)
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
            config = replace(config, perceptual_weight=0.0, critic="patches")
            stage = TokenizerStage(model, photos, held_out, config, self.device)
        self._stage("tokenizer", stage, config, len(photos.labels), TOKENIZER_SHARE)
        return load_checkpoint(self.out / "tokenizer" / "checkpoint").tokenizer

    def _train_transformer(
        self, tokenizer: nn.Module, photos: Photos, held_out: Photos | None
    ) -> None:
        import torch

        from maskgit_core.cli.training import new_transformer
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
        share = 1.0 if self.choices.tokenizer else 1 - TOKENIZER_SHARE
        self._stage("transformer", stage, config, len(photos.labels), share)
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
        from maskgit_core.cli.training import step_report
        from maskgit_core.training.budget import train_stage

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

    def _finish(self, photos: Photos, held_out: Photos | None) -> None:
        """Write the checkpoint with samples, measures and model card."""
        from maskgit_core.training.results import write_results

        write_results(
            self.out,
            photos=photos,
            held_out=held_out,
            data=self.args.data,
            val=self.args.val,
            num_samples=self.args.samples,
            choices=self.choices,
            stages=self.run.stages,
            notes=self.notes,
            device=self.device,
            losses=self.losses,
        )


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
    some = slice(0, None, max(1, len(data.labels) // len(val.labels)))
    seen = replace(data, tokens=data.tokens[some, 0].unsqueeze(1), labels=data.labels[some])
    found = [
        TransformerStage(
            model, stage.tokenizer, part, None, stage.config, device=stage.device
        ).metrics(model)
        for part in (seen, val)
    ]
    return found[0]["val_cross_entropy"], found[1]["val_cross_entropy"]
