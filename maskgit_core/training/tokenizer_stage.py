"""First stage: train the VQ tokenizer, with care that its codebook stays in use.

Quantisation starts after some steps of a plain autoencoder, from the k-means centres of its
latents; later, codes that almost no latent chose are moved onto latents of the current batch.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from maskgit_core.data.contact_sheet import contact_sheet
from maskgit_core.data.fingerprints import hash_of_photos
from maskgit_core.data.photos import (
    WHOLE,
    Part,
    Photos,
    augmented_batch,
    batch_indices,
    centre_batch,
    step_generator,
)
from maskgit_core.distributed.group import broadcast_, rank, size, sum_
from maskgit_core.losses import codebook_use
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.pixels import psnr, to_uint8
from maskgit_core.training.codebook import kmeans, revive_dead_codes_
from maskgit_core.training.discriminators import (
    Pair,
    balance_of,
    joined,
    pulls_of,
)
from maskgit_core.training.image_losses import ImageLoss, ImageLosses
from maskgit_core.training.sampled_tokens import SampledTokens
from maskgit_core.training.settings import TokenizerTrainConfig
from maskgit_core.weights.checkpoint import save_checkpoint

KMEANS_BATCHES = 16
KMEANS_ITERATIONS = 12
PREVIEW_BATCHES = 4
METRIC_IMAGES = 256
SHEET_IMAGES = 16
CPU = torch.device("cpu")


class _Forward(NamedTuple):
    """A piece of a batch before its losses are weighed against each other.

    Attributes:
        images: float32 (B, 3, H, W), the photos.
        encoded: float (B, D, h, w), the encoder's latents.
        tokens: int64 (B, h, w), or None before quantisation starts.
        made: float32 (B + S, 3, H, W), their reconstructions and S images of sampled tokens.
        seen: what the losses say of the images.
        reconstruction, adversarial, codes: float32 (), the piece's shares of the batch's losses.
        measures: of the piece alone.
    """

    images: Tensor
    encoded: Tensor
    tokens: Tensor | None
    made: Tensor
    seen: ImageLoss
    reconstruction: Tensor
    adversarial: Tensor | None
    codes: Tensor | float
    measures: dict[str, Any]


class TokenizerStage:
    """Trains a VQTokenizer on packed photos; see `training.Stage` for the methods.

    Args:
        model: the tokenizer, trained in place.
        photos: training photos, packed with a margin for crops.
        held_out: photos for measures and sheets; None takes the training photos.
        config: batch size, weights of the losses, seed.
        device: where to train.
        fit_codes: set the codebook by k-means when quantisation starts; False keeps the model's.
        sampled: `config.sampled_images` of these are decoded a step, for the discriminator only.
    """

    sharded = False
    watched = "l1"  # the adversarial loss may be anything, and the codes' begins late

    def __init__(
        self,
        model: VQTokenizer,
        photos: Photos,
        held_out: Photos | None,
        config: TokenizerTrainConfig,
        device: torch.device = CPU,
        *,
        fit_codes: bool = True,
        sampled: SampledTokens | None = None,
    ) -> None:
        self.model: nn.Module = model.to(device).to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        )
        self.device, self.data_seconds = device, 0.0
        self.photos, self.held_out = photos, held_out or photos
        self.config, self.sampled = config, sampled
        self.fit_codes = fit_codes and not config.freeze_codes
        self.size = model.config.image_size
        self.counts = torch.zeros(model.config.codebook_size, dtype=torch.int64, device=device)
        self.quantising = config.continuous_steps == 0 or config.freeze_codes
        self.losses = ImageLosses(config, self.size, len(photos.classes), device)
        self.made_from = {
            "classes": list(photos.classes),
            "fingerprint of the photos": hash_of_photos(photos.pixels, photos.labels),
        }
        self.may_leave_unused = not self.quantising  # the codebook has no gradient before
        if config.compile:
            model.encoder.compile()
            model.decoder.compile()
        if config.freeze_codes:
            model.encoder.requires_grad_(False)
            model.quantizer.requires_grad_(False)

    def _indices(self, step: int) -> Tensor:
        num, config = len(self.photos.labels), self.config
        return batch_indices(num, config.batch_size, config.seed, step)

    def _batch(self, step: int, part: Part = WHOLE) -> Tensor:
        began, indices = time.perf_counter(), self._indices(step)
        generator = step_generator(self.config.seed, step)
        images = augmented_batch(self.photos, indices, self.size, generator, part, self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        self.data_seconds += time.perf_counter() - began
        return images

    @torch.no_grad()
    def before_step(self, step: int, ema: nn.Module) -> None:
        """Set the codebook to the k-means centres of the latents when quantisation starts."""
        if step != self.config.continuous_steps or not self.fit_codes:
            return
        centres = self._centres(self.model, range(max(0, step - KMEANS_BATCHES), max(1, step)))
        # Sums may come out differently on each rank of a GPU.
        broadcast_([centres])
        for module in (self.model, ema):
            module.quantizer.codebook.copy_(centres)
        self.counts.zero_()

    def _centres(self, model: nn.Module, steps: range) -> Tensor:
        """Return a codebook, the k-means centres of a model's latents in the batches of `steps`."""
        latents = torch.cat([self._latents(model.encoder(self._batch(s))) for s in steps])
        generator = step_generator(self.config.seed, steps.stop, stream=1)
        num_codes = len(model.quantizer.codebook)
        return model.quantizer.normalized(kmeans(latents, num_codes, KMEANS_ITERATIONS, generator))

    def _with_codes(self, ema: nn.Module) -> nn.Module:
        """Return the EMA; before quantisation starts, a copy whose codes fit it."""
        if self.quantising:
            return ema
        ema = copy.deepcopy(ema)
        ema.quantizer.codebook.copy_(self._centres(ema, range(PREVIEW_BATCHES)))
        return ema

    def _latents(self, encoded: Tensor) -> Tensor:
        return self.model.quantizer.normalized(encoded.movedim(1, -1)).flatten(0, 2)

    def loss(self, step: int, part: Part = WHOLE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the sum of pixel, feature, codebook and adversarial losses.

        The measures are the parts of that sum, and how the codes of the last steps are used.
        """
        config = self.config
        pieces = config.grad_accum_steps
        if part.index % pieces == 0:
            self.batch_latents: list[Tensor] = []
            self.pairs: list[Pair] = []
            several = pieces > 1 and self.losses.judging(step)
            self.balance = self._balance(step, part) if several else None
        done = self._forward(step, part)
        measures, total = done.measures, done.reconstruction
        share = len(done.images) / config.batch_size
        self._count(done)
        if done.adversarial is not None:
            pulls = pulls_of(total, done.adversarial, done.made, self.model.decoder.head.weight)
            balance = self.balance
            if balance is None:
                balance = balance_of([sum_(pull) for pull in pulls.at_last])
            factor = config.adversarial_weight * balance
            total = joined(total, done.adversarial, done.made, pulls, factor)
            measures["balance"] = balance
            photos, judged = done.seen.photos.detach(), done.seen.judged.detach()
            self.pairs.append(Pair(photos, judged, share, self._made_share(done.made)))
        shown = {name: share * torch.as_tensor(each).detach() for name, each in measures.items()}
        if self.quantising and part.index % pieces == pieces - 1:
            # Of all processes and pieces together, so each process has an equal share in it.
            use = torch.tensor(codebook_use(self.counts)) / size()
            shown["code_share"], shown["perplexity"] = use
        return total + done.codes, shown

    def _made_share(self, made: Tensor) -> float:
        """Return which share of all that the decoder makes in a step this is."""
        drawn = self.config.sampled_images if self.sampled is not None else 0
        return len(made) / (self.config.batch_size + drawn)

    def _balance(self, step: int, first: Part) -> Tensor:
        """Return the balance of both losses over the whole batch, where it comes in pieces.

        It must be known before the first piece is learned from, so all are computed once more.
        """
        sums: list[Tensor] = []
        for place in range(self.config.grad_accum_steps):
            done = self._forward(step, Part(first.index + place, first.count))
            assert done.adversarial is not None
            weight = self.model.decoder.head.weight
            pulls = pulls_of(done.reconstruction, done.adversarial, done.made, weight).at_last
            sums = [a + b for a, b in zip(sums, pulls, strict=True)] if sums else list(pulls)
        return balance_of([sum_(pull) for pull in sums])

    def _forward(self, step: int, part: Part) -> _Forward:
        """Compute a piece; changes nothing."""
        images = self._batch(step, part)
        share = len(images) / self.config.batch_size
        labels = self.photos.labels[self._indices(step)[part.of(self.config.batch_size)]]
        encoded = self.model.encoder(images).float()
        latents, tokens, codes, measures = self._quantize(step, encoded)
        drawn = self._drawn(step, part)
        made = self._decode(latents, drawn)
        seen = self.losses.of(step, images, labels, made, labels[:0] if drawn is None else drawn[1])
        measures |= seen.measures
        measures["psnr"] = psnr(made[: len(images)].detach(), images).mean()
        adversarial = seen.adversarial
        if adversarial is not None:
            adversarial = self._made_share(made) * adversarial
        losses = share * seen.reconstruction, adversarial, share * codes
        return _Forward(images, encoded, tokens, made, seen, *losses, measures)

    def _drawn(self, step: int, part: Part) -> SampledTokens | None:
        """Return this part's share of the sampled grids of a step."""
        if self.sampled is None:
            return None
        generator = step_generator(self.config.seed, step, stream=4)
        count, num = self.config.sampled_images, len(self.sampled.labels)
        places = torch.randint(num, (count,), generator=generator)[part.of(count)]
        return SampledTokens(*(values[places] for values in self.sampled))

    def _decode(self, latents: Tensor, drawn: SampledTokens | None) -> Tensor:
        """Return images of the latents, then images of sampled tokens where there are some."""
        if drawn is not None:
            tokens = drawn.tokens.to(self.device)
            latents = torch.cat([latents, self.model.quantizer.lookup(tokens)])
        return self.model.decoder(latents).float()

    def _quantize(
        self, step: int, encoded: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | float, dict[str, Any]]:
        """Return the latents for the decoder, their tokens, the loss of the codes, and measures."""
        config, quantizer = self.config, self.model.quantizer
        if step < config.continuous_steps and not config.freeze_codes:
            return quantizer.normalized(encoded, dim=1), None, 0.0, {}
        quantized = quantizer(encoded)
        if config.freeze_codes:
            return quantized.latents, quantized.tokens, 0.0, {}
        measures = {"codebook": quantized.codebook_loss, "commit": quantized.commit_loss}
        loss = quantized.codebook_loss + config.commit_weight * quantized.commit_loss
        return quantized.latents, quantized.tokens, loss, measures

    def _count(self, done: _Forward) -> None:
        """Keep the latents of a piece, and count how its codes are used."""
        self.batch_latents.append(self._latents(done.encoded.detach()))
        self.quantising = done.tokens is not None
        if done.tokens is not None:
            tokens = done.tokens.flatten()
            self.counts += sum_(torch.bincount(tokens, minlength=len(self.counts)))

    def _latents_of_all(self) -> Tensor:
        """Return the latents of the whole batch, those of all processes in order."""
        own = torch.cat(self.batch_latents)
        cells = self.model.config.grid_size**2
        whole = own.new_zeros(self.config.batch_size * cells, own.shape[1])
        rows = Part(rank(), size()).of(self.config.batch_size)
        whole[rows.start * cells : rows.stop * cells] = own
        return sum_(whole)

    def after_step(self, step: int, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Train the discriminator; revive dead codes at intervals, but not in the last tenth."""
        config = self.config
        if self.losses.adversarial is not None and self.losses.judging(step):
            # Not in `loss`: the decoder's backward pass needs its weights as they were.
            self.losses.adversarial.update(self.pairs)
        quantising = step - config.continuous_steps
        if quantising <= 0 or not config.revive_every or quantising % config.revive_every:
            return
        if step < 0.9 * config.max_steps and not config.freeze_codes:
            generator = step_generator(config.seed, step, stream=2)
            quantizers = (self.model.quantizer, ema.quantizer)
            dead = revive_dead_codes_(quantizers, self._latents_of_all(), self.counts, generator)
            for moment in optimizer.state.get(self.model.quantizer.codebook, {}).values():
                if moment.ndim:
                    moment[dead] = 0
        self.counts.zero_()

    @torch.no_grad()
    def metrics(self, ema: nn.Module) -> dict[str, float]:
        """Return PSNR in dB, share of codes in use and perplexity on held-out photos."""
        if not self.quantising:
            return {}
        counts, values = torch.zeros_like(self.counts), []
        chosen = torch.linspace(0, len(self.held_out.labels) - 1, METRIC_IMAGES).long().unique()
        for part in chosen.split(32):
            images = centre_batch(self.held_out, part, self.size).to(self.device)
            output, quantized = ema(images.to(memory_format=torch.channels_last))
            values.append(psnr(output, images))
            counts += torch.bincount(quantized.tokens.flatten(), minlength=len(counts))
        use = codebook_use(counts)
        return {
            "val_psnr": torch.cat(values).mean().item(),
            "val_code_share": use.share,
            "val_perplexity": use.perplexity,
        }

    @torch.no_grad()
    def sheet(self, ema: nn.Module) -> Image.Image:
        """Return held-out photos in odd rows, their reconstructions below each."""
        last = len(self.held_out.labels) - 1
        places = torch.linspace(0, last, SHEET_IMAGES).long()
        images = centre_batch(self.held_out, places, self.size).to(self.device)
        output, _ = self._with_codes(ema)(images)
        rows = torch.stack([images.unflatten(0, (2, -1)), output.unflatten(0, (2, -1))], dim=1)
        return contact_sheet(to_uint8(rows.flatten(0, 2).cpu()), SHEET_IMAGES // 2, gap=2)

    @torch.no_grad()
    def export(self, ema: nn.Module, folder: Path) -> None:
        """Write the EMA as a tokenizer checkpoint."""
        save_checkpoint(
            folder / "checkpoint", tokenizer=self._with_codes(ema), classes=self.photos.classes
        )

    def state(self) -> dict[str, Any]:
        """Return the counts since the last revival, whether codes are used, the discriminator."""
        adversarial = self.losses.adversarial.state() if self.losses.adversarial is not None else {}
        return {"counts": self.counts, "quantising": self.quantising, "adversarial": adversarial}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.counts = state["counts"].to(self.device)
        self.quantising = bool(state["quantising"])
        if self.losses.adversarial is not None:
            self.losses.adversarial.load_state(state["adversarial"])
