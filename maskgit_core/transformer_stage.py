"""Second stage: train the masked transformer on tokens that were extracted once.

Each image is stored as several token grids, one a crop and its mirror image; a step draws one of
them. Images are masked at ratios of their own and some lose their class, for guidance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from maskgit_core.checkpoint import save_checkpoint, write_atomically
from maskgit_core.config import SamplingConfig, TrainConfig
from maskgit_core.data import Photos, batch_indices, step_generator, to_images
from maskgit_core.losses import draw_token_mask, masked_cross_entropy
from maskgit_core.sampling import decode_steps
from maskgit_core.sheets import tile

ENCODE_BATCH = 64
METRIC_BATCH = 64
SHEET_SAMPLES = 4
SHEET_CLASSES = 12
HASHED_PHOTOS = 256


@dataclass(frozen=True)
class TokenData:
    """Token grids of a data set.

    Attributes:
        tokens: int64 (num, views, N): crops and mirror images of each photo.
        labels: int64 (num,).
        classes: names, label by label.
    """

    tokens: Tensor
    labels: Tensor
    classes: list[str]


def crop_corners(slack: int) -> list[tuple[int, int]]:
    """Return the (top, left) corners of the crops that are encoded: the centre, then the rest."""
    if slack == 0:
        return [(0, 0)]
    centre = slack // 2
    return [(centre, centre), (0, 0), (0, slack), (slack, 0), (slack, slack)]


@torch.no_grad()
def extract_tokens(
    tokenizer: nn.Module,
    photos: Photos,
    *,
    crops: int = 1,
    cache: Path | None = None,
    progress: Callable[[Sequence[Tensor]], Sequence[Tensor]] = lambda batches: batches,
) -> TokenData:
    """Encode every photo once, each crop together with its mirror image.

    Args:
        tokenizer: with `config.image_size` and `encode_to_tokens`.
        photos: packed photos.
        crops: how many crops a photo, in 1..5, the centre first; 1 where photos have no margin.
        cache: a safetensors file that is read where it fits the tokenizer and the photos, and
            written where not.
        progress: wraps the list of batches.

    Returns:
        The token grids; views are ordered crop by crop, the mirror image second.
    """
    size = tokenizer.config.image_size
    corners = crop_corners(photos.pixels.shape[1] - size)[:crops]
    key = _fingerprint(tokenizer, photos, corners)
    tokens = _read_cache(cache, key) if cache is not None else None
    if tokens is not None:
        return TokenData(tokens, photos.labels, photos.classes)
    parts = []
    for part in progress(torch.arange(len(photos.labels)).split(ENCODE_BATCH)):
        pixels = photos.pixels[part.numpy()]
        views = []
        for top, left in corners:
            images = to_images(pixels[:, top : top + size, left : left + size])
            for view in (images, images.flip(-1)):
                view = view.to(memory_format=torch.channels_last)
                views.append(tokenizer.encode_to_tokens(view).flatten(1))
        parts.append(torch.stack(views, dim=1))
    tokens = torch.cat(parts)
    if cache is not None:
        stored = {"tokens": tokens.to(torch.int32)}
        write_atomically(cache, lambda path: save_file(stored, path, metadata={"key": key}))
    return TokenData(tokens, photos.labels, photos.classes)


def _read_cache(cache: Path, key: str) -> Tensor | None:
    """Return the stored tokens; None where they are missing, damaged or of something else."""
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return file.get_tensor("tokens").long()
    except (SafetensorError, OSError, ValueError):
        return None


def _fingerprint(tokenizer: nn.Module, photos: Photos, corners: list[tuple[int, int]]) -> str:
    digest = hashlib.sha256(repr((corners, photos.pixels.shape)).encode())
    for name, tensor in tokenizer.state_dict().items():
        digest.update(name.encode() + tensor.detach().float().numpy().tobytes())
    for start in range(0, len(photos.pixels), HASHED_PHOTOS):
        digest.update(np.ascontiguousarray(photos.pixels[start : start + HASHED_PHOTOS]))
    return digest.hexdigest()


def token_geometry(codebook: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return float32 (K, width), a random projection of the codebook with deviation 0.02.

    Codes that look alike start alike, so what is learned of one helps the other from the start.
    """
    projection = torch.randn(codebook.shape[1], width, generator=generator)
    projected = codebook @ projection
    return (projected - projected.mean(0)) / projected.std() * 0.02


class TransformerStage:
    """Trains a masked transformer on token grids; see `training.Stage` for the methods.

    Args:
        model: the transformer, trained in place.
        tokenizer: decodes the sheets and is exported with the transformer.
        data: training tokens.
        held_out: tokens for the measures; None takes the training tokens.
        config: batch size, label smoothing, shares of dropped classes and tokens, seed.
        sampling: how the sheets are decoded, and the default of the exported checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: nn.Module,
        data: TokenData,
        held_out: TokenData | None,
        config: TrainConfig,
        sampling: SamplingConfig | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.data = data
        self.held_out = held_out or data
        self.config = config
        self.sampling = sampling or SamplingConfig()

    def before_step(self, step: int, ema: nn.Module) -> None:
        """Do nothing: this stage has one phase."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy at the masked positions, and the share predicted right."""
        config, data = self.config, self.data
        generator = step_generator(config.seed, step)
        chosen = batch_indices(len(data.labels), config.batch_size, config.seed, step)
        view = torch.randint(0, data.tokens.shape[1], (len(chosen),), generator=generator)
        targets, labels = data.tokens[chosen, view], data.labels[chosen]
        token_mask = draw_token_mask(*targets.shape, generator, config.mask_schedule)
        dropped = torch.rand(len(labels), generator=generator) < config.class_drop
        labels = labels.masked_fill(dropped, self.model.null_label)
        hidden = token_mask
        if config.token_drop:
            hidden = hidden | (torch.rand(targets.shape, generator=generator) < config.token_drop)
        tokens = targets.masked_fill(hidden, self.model.mask_token_id)
        logits = self._logits(step, tokens, labels)
        loss = masked_cross_entropy(logits, targets, token_mask, config.label_smoothing)
        with torch.no_grad():
            right = (logits.argmax(-1) == targets)[token_mask].float().mean()
        return loss, {"accuracy": right}

    def _logits(self, step: int, tokens: Tensor, labels: Tensor) -> Tensor:
        if not getattr(self.model.config, "dropout", 0.0):
            return self.model(tokens, labels)
        # Dropout draws from the global generator only, which no state file holds.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_generator(self.config.seed, step, stream=1).initial_seed())
            return self.model(tokens, labels)

    def after_step(self, step: int, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Do nothing."""

    @torch.no_grad()
    def metrics(self, ema: nn.Module) -> dict[str, float]:
        """Return the cross-entropy in nats on held-out centre crops, at ratios fixed per image."""
        generator = step_generator(0, 0)
        targets = self.held_out.tokens[:, 0]
        token_mask = draw_token_mask(*targets.shape, generator)
        loss = right = 0.0
        ema.eval()
        for rows in torch.arange(len(targets)).split(METRIC_BATCH):
            tokens = targets[rows].masked_fill(token_mask[rows], ema.mask_token_id)
            logits = ema(tokens, self.held_out.labels[rows])[token_mask[rows]]
            wanted = targets[rows][token_mask[rows]]
            loss += nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
            right += (logits.argmax(-1) == wanted).sum().item()
        total = token_mask.sum().item()
        return {"val_cross_entropy": loss / total, "val_accuracy": right / total}

    @torch.inference_mode()
    def sheet(self, ema: nn.Module) -> Image.Image:
        """Return samples of the running mean, one row a class (at most twelve classes)."""
        ema.eval()
        config = ema.config
        # A model that was extended knows classes that this data does not show.
        labels = self.data.labels.unique()[:SHEET_CLASSES].repeat_interleave(SHEET_SAMPLES)
        grid = (len(labels), config.grid_size, config.grid_size)
        steps = decode_steps(
            ema,
            torch.full(grid, ema.mask_token_id),
            labels,
            self.sampling,
            codebook_size=config.codebook_size,
            null_label=ema.null_label,
            seeds=range(len(labels)),
        )
        for state in steps:
            tokens = state.tokens
        return tile(self.tokenizer.decode_tokens(tokens), SHEET_SAMPLES)

    def export(self, ema: nn.Module, folder: Path) -> None:
        """Write the tokenizer and the running mean as a checkpoint."""
        save_checkpoint(
            folder / "checkpoint",
            tokenizer=self.tokenizer,
            transformer=ema,
            classes=self.data.classes,
            sampling=self.sampling,
        )

    def state(self) -> dict[str, Any]:
        """Return nothing: a step depends on (seed, step) only."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back nothing."""
