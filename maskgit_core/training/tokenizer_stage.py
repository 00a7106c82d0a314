"""First stage: train the VQ tokenizer, with care that its codebook stays in use.

Quantisation starts after some steps of a plain autoencoder, from the k-means centres of its
latents; later, codes that almost no latent chose are moved onto latents of the current batch.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from maskgit_core.config import TrainConfig
from maskgit_core.data.contact_sheet import contact_sheet
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
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.pixels import psnr, to_uint8
from maskgit_core.training.adversarial import AdversarialLoss
from maskgit_core.training.codebook import kmeans, revive_dead_codes_
from maskgit_core.training.discriminators import Batch, FeatureCritic, PatchCritic
from maskgit_core.training.losses import (
    DEEP_FEATURE_BLOCKS,
    FEATURE_BLOCKS,
    PerceptualLoss,
    codebook_use,
)
from maskgit_core.training.sampled_tokens import SampledTokens
from maskgit_core.weights.checkpoint import save_checkpoint

KMEANS_BATCHES = 16
KMEANS_ITERATIONS = 12
PREVIEW_BATCHES = 4
METRIC_IMAGES = 256
SHEET_IMAGES = 16
FIRST_JUDGED = 1  # feature map for the critic; the one before has hardly more than pixels
WINDOW_SHARE = 0.75  # of an image's side, enlarged for the feature network
CPU = torch.device("cpu")


class TokenizerStage:
    """Trains a VQTokenizer on packed photos; see `training.Stage` for the methods.

    Args:
        model: the tokenizer, trained in place.
        photos: training photos, packed with a margin for crops.
        held_out: photos for measures and sheets; None takes the training photos.
        config: batch size, weights of the losses, seed.
        device: where to train.
        fit_codes: set the codebook by k-means when quantisation starts; False keeps the model's.
        sampled: `config.sampled_images` of these grids are decoded a step, for the critic only.
    """

    watched = "l1"  # the critic's loss may be anything, and the codes' begins late

    def __init__(
        self,
        model: VQTokenizer,
        photos: Photos,
        held_out: Photos | None,
        config: TrainConfig,
        device: torch.device = CPU,
        *,
        fit_codes: bool = True,
        sampled: SampledTokens | None = None,
    ) -> None:
        self.model = model.to(device, memory_format=torch.channels_last)
        self.device = device
        self.data_seconds = 0.0
        self.photos = photos
        self.held_out = held_out or photos
        self.config = config
        self.sampled = sampled
        self.fit_codes = fit_codes and not config.freeze_codes
        self.size = model.config.image_size
        self.counts = torch.zeros(model.config.codebook_size, dtype=torch.int64, device=device)
        self.quantising = config.continuous_steps == 0 or config.freeze_codes
        self.perceptual: PerceptualLoss | None = None
        if config.perceptual_weight:
            enlarged = config.perceptual_scale > 1
            self.perceptual = PerceptualLoss(DEEP_FEATURE_BLOCKS if enlarged else FEATURE_BLOCKS)
            self.perceptual.to(device)
        self.adversarial: AdversarialLoss | None = None
        if config.adversarial_weight:
            self.adversarial = AdversarialLoss(self._build_critic(), device)
            broadcast_(self.adversarial.critic.parameters())
        # The codebook has no gradient before quantisation starts.
        self.may_leave_unused = not self.quantising
        if config.compile:
            for half in (model.encoder, model.decoder):
                half.compile()
        if config.freeze_codes:
            model.encoder.requires_grad_(False)
            model.quantizer.requires_grad_(False)

    def _build_critic(self) -> nn.Module:
        if self.config.critic == "patches":
            return PatchCritic()
        blank = torch.zeros(1, 3, self.size, self.size, device=self.device)
        with torch.no_grad():
            maps = self.perceptual.features(*self._seen(0, blank))
        shapes = [tuple(view.shape[1:3]) for view in maps[FIRST_JUDGED:]]
        return FeatureCritic(shapes, len(self.photos.classes))

    def _indices(self, step: int) -> Tensor:
        return batch_indices(
            len(self.photos.labels), self.config.batch_size, self.config.seed, step
        )

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
        """Return the running mean; before quantisation starts, a copy whose codes fit it."""
        if self.quantising:
            return ema
        ema = copy.deepcopy(ema)
        ema.quantizer.codebook.copy_(self._centres(ema, range(PREVIEW_BATCHES)))
        return ema

    def _latents(self, encoded: Tensor) -> Tensor:
        return self.model.quantizer.normalized(encoded.movedim(1, -1)).flatten(0, 2)

    def loss(self, step: int, part: Part = WHOLE) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a part's share of the sum of pixel, feature, codebook and critic losses.

        The measures are the parts of that sum, and how the codes of the last steps are used.
        """
        config, images = self.config, self._batch(step, part)
        share = len(images) / config.batch_size
        if part.index % config.accumulate_steps == 0:
            self.batch_latents, self.critic_pairs = [], []
        parts: dict[str, Any] = {}
        latents, code_loss = self._quantize(step, images, parts)
        drawn = self._drawn(step, part)
        made = self._decode(latents, drawn)
        output = made[: len(images)]
        parts |= {"l1": (output - images).abs().mean(), "l2": (output - images).square().mean()}
        total = config.l1_weight * parts["l1"] + config.l2_weight * parts["l2"]
        views, wanted = [made], [images]
        if self.perceptual is not None:
            maps, targets = self._features(step, made, images)
            pairs = [view[: len(images)] for view in maps]
            parts["perceptual"] = self.perceptual.distance(pairs, targets).mean()
            total = total + config.perceptual_weight * parts["perceptual"]
            if config.critic == "features":
                views, wanted = maps[FIRST_JUDGED:], targets[FIRST_JUDGED:]
        total = share * total
        if self.adversarial is not None and step >= config.adversarial_start:
            labels = self.photos.labels[self._indices(step)[part.of(config.batch_size)]]
            both = labels if drawn is None else torch.cat([labels, drawn.labels])
            photos = Batch(wanted, labels.to(self.device))
            judged = Batch(views, both.to(self.device))
            parts["adversarial"] = self.adversarial.generator_loss(judged)
            total, parts["balance"] = self.adversarial.join(
                total,
                share * parts["adversarial"],
                made,
                self.model.decoder.head.weight,
                config.adversarial_weight,
            )
            self.critic_pairs.append((photos, judged.detach(), share))
        parts["psnr"] = psnr(output.detach(), images).mean()
        measures = {name: share * torch.as_tensor(value).detach() for name, value in parts.items()}
        return total + share * code_loss, measures

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

    def _features(self, step: int, output: Tensor, images: Tensor) -> tuple[list[Tensor], ...]:
        """Return the feature maps of what was made and, without gradient, of the photos."""
        made, real = self._seen(step, output, images)
        with torch.no_grad():
            targets = self.perceptual.features(real)
        return self.perceptual.features(made), targets

    def _seen(self, step: int, *pair: Tensor) -> list[Tensor]:
        """Return images as the feature network sees them: whole, or one window enlarged."""
        scale = self.config.perceptual_scale
        if scale == 1:
            return list(pair)
        side = round(WINDOW_SHARE * self.size)
        generator = step_generator(self.config.seed, step, stream=3)
        top, left = torch.randint(0, self.size - side + 1, (2,), generator=generator).tolist()
        windows = [images[:, :, top : top + side, left : left + side] for images in pair]
        return [
            F.interpolate(window, scale_factor=scale, mode="bicubic", align_corners=False)
            for window in windows
        ]

    def _quantize(
        self, step: int, images: Tensor, parts: dict[str, Any]
    ) -> tuple[Tensor, Tensor | float]:
        """Return the latents for the decoder and the loss of the codes; measures go to parts."""
        config, quantizer = self.config, self.model.quantizer
        encoded = self.model.encoder(images).float()
        self.batch_latents.append(self._latents(encoded.detach()))
        self.quantising = step >= config.continuous_steps or config.freeze_codes
        if not self.quantising:
            return quantizer.normalized(encoded, dim=1), 0.0
        quantized = quantizer(encoded)
        self.counts += sum_(torch.bincount(quantized.tokens.flatten(), minlength=len(self.counts)))
        use = codebook_use(self.counts)
        parts |= {"code_share": use.share, "perplexity": use.perplexity}
        if config.freeze_codes:
            return quantized.latents, 0.0
        parts |= {"codebook": quantized.codebook_loss, "commit": quantized.commit_loss}
        code_loss = quantized.codebook_loss + config.commit_weight * quantized.commit_loss
        return quantized.latents, code_loss

    def _latents_of_all(self) -> Tensor:
        """Return the latents of the whole batch, those of all processes in order."""
        own = torch.cat(self.batch_latents)
        cells = self.model.config.grid_size**2
        whole = own.new_zeros(self.config.batch_size * cells, own.shape[1])
        rows = Part(rank(), size()).of(self.config.batch_size)
        whole[rows.start * cells : rows.stop * cells] = own
        return sum_(whole)

    def after_step(self, step: int, ema: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Train the critic; revive dead codes at intervals, but not in the last tenth."""
        config = self.config
        if self.adversarial is not None and step >= config.adversarial_start:
            # Not in `loss`: the generator's backward pass needs the critic's weights as they were.
            self.adversarial.update(self.critic_pairs)
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
        images = centre_batch(
            self.held_out, torch.linspace(0, last, SHEET_IMAGES).long(), self.size
        ).to(self.device)
        output, _ = self._with_codes(ema)(images)
        rows = torch.stack([images.unflatten(0, (2, -1)), output.unflatten(0, (2, -1))], dim=1)
        return contact_sheet(to_uint8(rows.flatten(0, 2).cpu()), SHEET_IMAGES // 2, gap=2)

    @torch.no_grad()
    def export(self, ema: nn.Module, folder: Path) -> None:
        """Write the running mean as a tokenizer checkpoint."""
        save_checkpoint(
            folder / "checkpoint", tokenizer=self._with_codes(ema), classes=self.photos.classes
        )

    def state(self) -> dict[str, Any]:
        """Return the counts since the last revival, and the critic."""
        critic = self.adversarial.state() if self.adversarial is not None else {}
        return {"counts": self.counts, "adversarial": critic}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.counts = state["counts"].to(self.device)
        if self.adversarial is not None:
            self.adversarial.load_state(state["adversarial"])
