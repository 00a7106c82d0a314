"""Second stage: train the masked transformer on tokens that were extracted once.

Each image is stored as several token grids, one a crop and its mirror image; a step draws one of
them. Images are masked at ratios of their own and some lose their class, for guidance.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from maskgit_core.config import SamplingConfig
from maskgit_core.data.contact_sheet import contact_sheet
from maskgit_core.data.fingerprints import hash_of_networks, hash_of_rows, hash_of_values
from maskgit_core.data.photos import WHOLE, Part, batch_indices, step_generator
from maskgit_core.data.shards import ShardedTokens, TokenData
from maskgit_core.decoding.loop import decode_steps
from maskgit_core.losses import draw_token_mask, masked_cross_entropy
from maskgit_core.pixels import to_uint8
from maskgit_core.training.settings import TransformerTrainConfig
from maskgit_core.weights.checkpoint import save_checkpoint

METRIC_BATCH = 64
SHEET_SAMPLES = 4
SHEET_CLASSES = 12
CPU = torch.device("cpu")


def token_geometry(codebook: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return float32 (K, width), a random projection of the codebook with deviation 0.02.

    Codes that look alike start alike, so what is learned of one helps the other from the start.
    """
    projection = torch.randn(codebook.shape[1], width, generator=generator)
    projected = codebook @ projection
    return (projected - projected.mean(0)) / projected.std() * 0.02


def hash_of_tokens(data: TokenData) -> str:
    """Return a short hash of token grids and their labels."""
    tokens = data.tokens
    shards = tokens.shards if isinstance(tokens, ShardedTokens) else [tokens]
    return hash_of_values([hash_of_rows(shard.numpy()) for shard in shards], data.labels.tolist())


class TransformerStage:
    """Trains a masked transformer on token grids; see `training.Stage` for the methods.

    Args:
        model: the transformer, trained in place.
        tokenizer: decodes the sheets and is exported with the transformer.
        data: training tokens.
        held_out: tokens for the measures; None takes the training tokens.
        config: batch size, label smoothing, shares of dropped classes and tokens, seed.
        sampling: how the sheets are decoded, and the default of the exported checkpoint.
        device: where to train.
    """

    watched = "loss"
    may_leave_unused = False

    def __init__(
        self,
        model: nn.Module,
        tokenizer: nn.Module,
        data: TokenData,
        held_out: TokenData | None,
        config: TransformerTrainConfig,
        sampling: SamplingConfig | None = None,
        device: torch.device = CPU,
    ) -> None:
        self.model = model.to(device)
        self.sharded = config.shard == "full"
        self.tokenizer = tokenizer.to(device)
        self.device = device
        self.data_seconds = 0.0
        model.checkpoint_blocks = config.checkpoint_blocks  # type: ignore[assignment]
        if config.compile:
            for block in model.blocks:
                block.compile()
        self.data = data
        self.made_from = {
            "classes": list(data.classes),
            "fingerprint of the tokenizer": hash_of_networks(tokenizer),
            "fingerprint of the tokens": hash_of_tokens(data),
        }
        self.held_out = held_out or data
        self.config = config
        self.sampling = sampling or SamplingConfig()

    def before_step(self, step: int, ema: nn.Module) -> None:
        """Do nothing: this stage has one phase."""

    def _batch(self, step: int, part: Part) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """Return tokens, labels, targets and mask of a part, and the masked cells of the batch.

        Every rank draws the whole batch, which costs little, so that the parts fit together.
        """
        config, data = self.config, self.data
        generator = step_generator(config.seed, step)
        chosen = batch_indices(len(data.labels), config.batch_size, config.seed, step)
        view = torch.randint(0, data.tokens.shape[1], (len(chosen),), generator=generator)
        shape = (len(chosen), data.tokens.shape[2])
        token_mask = draw_token_mask(*shape, generator, config.mask_schedule)
        dropped = torch.rand(len(chosen), generator=generator) < config.label_drop_prob
        hidden = token_mask
        if config.token_drop:
            hidden = hidden | (torch.rand(shape, generator=generator) < config.token_drop)
        own = part.of(len(chosen))
        targets = data.tokens[chosen[own], view[own]].long()
        labels = data.labels[chosen[own]].masked_fill(dropped[own], self.model.null_label)
        tokens = targets.masked_fill(hidden[own], self.model.mask_token_id)
        return tokens, labels, targets, token_mask[own], int(token_mask.sum())

    def loss(self, step: int, part: Part = WHOLE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the batch's cross-entropy at the masked positions, and of the
        positions that were predicted right.
        """
        began = time.perf_counter()
        *tensors, num_masked = self._batch(step, part)
        tokens, labels, targets, token_mask = (t.to(self.device) for t in tensors)
        self.data_seconds += time.perf_counter() - began
        wanted = targets[token_mask]
        logits = self._logits(step, part, tokens, labels, token_mask)
        loss = masked_cross_entropy(logits, wanted, num_masked, self.config.label_smoothing)
        right = (logits.detach().argmax(-1) == wanted).sum() / num_masked
        return loss, {"accuracy": right}

    def _logits(
        self, step: int, part: Part, tokens: Tensor, labels: Tensor, cells: Tensor
    ) -> Tensor:
        if not getattr(self.model.config, "dropout", 0.0):
            return self.model(tokens, labels, cells=cells)
        # Dropout draws from the global generator only, which no state file holds.
        with torch.random.fork_rng(devices=[]):
            generator = step_generator(self.config.seed, step, stream=1 + part.index)
            torch.manual_seed(generator.initial_seed())
            return self.model(tokens, labels, cells=cells)

    def after_step(self, step: int, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Do nothing."""

    @torch.no_grad()
    def metrics(self, ema: nn.Module) -> dict[str, float]:
        """Return the cross-entropy in nats on held-out centre crops, at ratios fixed per image."""
        targets = self.held_out.tokens[:, 0].long()
        token_mask = draw_token_mask(len(targets), targets.shape[1], step_generator(0, 0))
        loss = right = 0.0
        ema.eval()
        for rows in torch.arange(len(targets)).split(METRIC_BATCH):
            mask, wanted = (part[rows].to(self.device) for part in (token_mask, targets))
            labels = self.held_out.labels[rows].to(self.device)
            logits = ema(wanted.masked_fill(mask, ema.mask_token_id), labels, cells=mask)
            loss += nn.functional.cross_entropy(logits, wanted[mask], reduction="sum").item()
            right += (logits.argmax(-1) == wanted[mask]).sum().item()
        total = token_mask.sum().item()
        return {"val_cross_entropy": loss / total, "val_accuracy": right / total}

    @torch.inference_mode()
    def sheet(self, ema: nn.Module) -> Image.Image:
        """Return samples of the EMA, one row a class (at most twelve classes)."""
        ema.eval()
        config = ema.config
        # A model that was extended knows classes that this data does not show.
        labels = self.data.labels.unique()[:SHEET_CLASSES].repeat_interleave(SHEET_SAMPLES)
        grid = (len(labels), config.grid_size, config.grid_size)
        steps = decode_steps(
            ema,
            torch.full(grid, ema.mask_token_id, device=self.device),
            labels.to(self.device),
            self.sampling,
            codebook_size=config.codebook_size,
            null_label=ema.null_label,
            seeds=range(len(labels)),
        )
        for state in steps:
            tokens = state.tokens
        images = to_uint8(self.tokenizer.decode_tokens(tokens).cpu())
        return contact_sheet(images, SHEET_SAMPLES, gap=2)

    def export(self, ema: nn.Module, folder: Path) -> None:
        """Write the tokenizer and the EMA as a checkpoint."""
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
