"""The one object with state: a tokenizer and a masked transformer, ready to use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from maskgit_core.config import SamplingConfig, check_range
from maskgit_core.decoding.codebook_patches import codebook_patches, fill_masked
from maskgit_core.decoding.groups import TokenGroups
from maskgit_core.decoding.loop import StepState, decode_steps
from maskgit_core.devices.choice import find_device
from maskgit_core.devices.first_step import StartStore
from maskgit_core.devices.precision import bfloat16_pays, check_precision
from maskgit_core.devices.prepack import PackedCopy
from maskgit_core.editing.plan import EditPlan, PixelMask, finish_edit, plan_edit, plan_outpaint
from maskgit_core.files import CheckpointError
from maskgit_core.inputs import (
    Label,
    check_images,
    check_tensor,
    check_tokens,
    folder_name,
    image_seeds,
    resolve_label,
)
from maskgit_core.recipes import NO_CLASS
from maskgit_core.results import GenerateResult, InpaintResult
from maskgit_core.weights.checkpoint import Checkpoint, load_checkpoint
from maskgit_core.weights.hub import KNOWN_WEIGHTS, resolve_checkpoint

DECODE_BATCH = 8
MAX_IMAGES = 4096  # in one call; all are decoded together


class MaskGIT:
    """Class-conditional generation and editing with a masked transformer.

    Args:
        checkpoint: networks, class names and default settings.
        name: what recipes and messages call the model.
        precision: of the transformer's products while decoding, one of `config.PRECISIONS`.
            bfloat16 and int8 are faster where the processor has them and draw other tokens at
            some cells, so the same seed gives another image. int8 is for CPUs; elsewhere it is
            float32.

    Attributes:
        name: of the checkpoint's folder, or the known name that it was loaded by.
        classes: name of each label.
        sampling: the settings that are used where none are given.
        presets: other settings that suit the model, by name.
        image_size: pixels a side.
        grid_size: tokens a side.
        codebook_size: K.
        tokens_per_cell: how many tokens of a cell are masked and decided on their own; 1 but for
            networks that take an id's bits in groups.
        mask_token_id: K, the id of a cell that is still masked.
        null_label: label of "no class"; None where the network has none.
    """

    def __init__(
        self, checkpoint: Checkpoint, name: str = "model", *, precision: str = "float32"
    ) -> None:
        check_precision(precision)
        if checkpoint.transformer is None:
            raise CheckpointError("the checkpoint holds a tokenizer only; a transformer is needed")
        self.name = name
        # On a CPU convolutions are faster with the channels of a pixel side by side.
        self.tokenizer: nn.Module = checkpoint.tokenizer.eval().to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        )
        self.transformer: nn.Module = checkpoint.transformer.eval()
        self.classes = list(checkpoint.classes)
        self.sampling = checkpoint.sampling
        self.presets = dict(checkpoint.presets)
        self.image_size: int = self.tokenizer.config.image_size
        self.grid_size: int = self.transformer.config.grid_size
        self.codebook_size: int = self.transformer.config.codebook_size
        self.mask_token_id = self.codebook_size
        self.tokens_per_cell: int = getattr(self.transformer.config, "groups", 1)
        self.null_label: int | None = self.transformer.null_label
        self.precision = precision
        self._packed = PackedCopy(precision)
        self._starts = StartStore()

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        precision: str = "float32",
        device: str = "auto",
    ) -> MaskGIT:
        """Load a checkpoint folder, a published model by its name, or a Hub repository.

        Args:
            source: folder, known name or owner/name.
            precision: as in `MaskGIT`.
            device: `cpu`, `cuda`, `cuda:1` and so on, or `mps`; `auto` is the CPU, whose images of
                a seed are the same on every machine.

        Raises:
            ValueError: an unknown precision or device, or one that this machine does not have.
            CheckpointError: missing, damaged or unfitting weights, or no way to fetch them.
        """
        folder = resolve_checkpoint(source)
        known = os.fspath(source) in KNOWN_WEIGHTS and not Path(source).is_dir()
        name = os.fspath(source) if known else folder_name(source)
        place = find_device(device)
        model = cls(load_checkpoint(folder), name, precision=precision)
        return model if place.type == "cpu" else model.to(place)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.transformer.parameters()).device

    def to(self, device: str | torch.device) -> MaskGIT:
        """Move the networks and return self."""
        self.tokenizer.to(device)
        self.transformer.to(device)
        return self

    def fast_transformer(self) -> nn.Module:
        """Return the transformer that decoding uses: a copy with packed weights on a CPU."""
        return self._packed.of(self.transformer)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return tokens int64 (B, h, w) of images float32 (B, 3, H, W) in [-1, 1].

        Raises:
            ValueError: another shape, or sides that are no multiple of a token's pixels.
        """
        check_images(images, self.image_size // self.grid_size)
        images = images.to(self.device, torch.float32)
        with self._rounding(False):
            parts = [self.tokenizer.encode_to_tokens(part) for part in images.split(DECODE_BATCH)]
            return torch.cat(parts).cpu()

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Return images float32 (B, 3, H, W) in [-1, 1] of tokens int64 (B, h, w) in [0, K).

        On a CPU one after another, as in a batch the last bit of a pixel can differ.

        Raises:
            ValueError: another type or shape, or ids out of range (masked cells included).
        """
        return self._decoded(tokens, 1 if self.device.type == "cpu" else DECODE_BATCH)

    def _decoded(self, tokens: Tensor, at_once: int, *, rounded: bool = False) -> Tensor:
        check_tokens(tokens, self.codebook_size - 1)
        tokens = tokens.to(self.device)
        with self._rounding(rounded):
            parts = [self.tokenizer.decode_tokens(part).float() for part in tokens.split(at_once)]
            return torch.cat(parts).clamp(-1, 1).cpu().contiguous()

    @torch.no_grad()
    def decode_partial(self, tokens: Tensor) -> Tensor:
        """Return images of tokens in [0, K]; what masked cells show means nothing.

        They take codes as `patches.fill_masked` says.
        """
        return self.decode(fill_masked(tokens, self.mask_token_id, self.codebook_patches))

    @torch.no_grad()
    def preview(self, tokens: Tensor) -> Tensor:
        """Return `decode_partial` of tokens in [0, K], in bfloat16 where that is faster.

        The images are for the eye: they are off by a grey level or two of 255.
        """
        filled = fill_masked(tokens, self.mask_token_id, self.codebook_patches)
        return self._decoded(filled, DECODE_BATCH, rounded=bfloat16_pays(self.device.type))

    def _rounding(self, wanted: bool) -> torch.autocast:
        """Compute in bfloat16, or not, whatever the caller's autocast says."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)

    @torch.no_grad()
    def codebook_patches(self) -> np.ndarray:
        """Return uint8 (K, p, p, 3): what each code shows; see `patches.codebook_patches`."""
        if not hasattr(self, "_patches"):
            self._patches = codebook_patches(self)
        return self._patches

    def label_id(self, label: Label) -> int:
        """Return the label of a class; see `inputs.resolve_label`."""
        return resolve_label(label, self.classes, self.null_label)

    def class_name(self, label: int) -> str:
        """Return the name of a label; that of "no class" is `recipes.NO_CLASS`."""
        return NO_CLASS if label == self.null_label else self.classes[label]

    def decode_tokens_steps(
        self,
        tokens: Tensor,
        labels: Sequence[Label],
        config: SamplingConfig | None = None,
        seed: int | Sequence[int] = 0,
        *,
        wanted: Callable[[int], bool] | None = None,
    ) -> Iterator[StepState]:
        """Fill the masked cells of token grids, int64 (B, h, w) in [0, K]; known cells stay.

        Image i uses seed + i, or seed i of a list. `wanted` as in `decode_steps`.

        Raises:
            ValueError: as `generate_steps`, or grids of another shape.
        """
        check_tensor("tokens", tokens)
        config = self.sampling if config is None else config
        if not isinstance(config, SamplingConfig):
            raise ValueError(f"config must be a SamplingConfig; got {config!r}")
        if tokens.ndim != 3 or tuple(tokens.shape[1:]) != (self.grid_size, self.grid_size):
            raise ValueError(
                f"tokens must be (B, {self.grid_size}, {self.grid_size}); got {tuple(tokens.shape)}"
            )
        label_ids = torch.tensor([self.label_id(label) for label in labels], dtype=torch.int64)
        check_tokens(tokens, self.mask_token_id)
        groups = self._token_groups()
        tokens = tokens if groups is None else groups.split(tokens)
        mask_token_id = self.mask_token_id if groups is None else groups.size
        network = self._starts.start(self.fast_transformer(), mask_token_id)
        steps = decode_steps(
            network,
            tokens.to(self.device),
            label_ids.to(self.device),
            config,
            codebook_size=mask_token_id,
            null_label=self.null_label,
            seeds=image_seeds(seed, len(label_ids)),
            wanted=wanted,
        )
        return self._run(steps if groups is None else map(groups.cells, steps))

    def _token_groups(self) -> TokenGroups | None:
        if self.tokens_per_cell == 1:
            return None
        return TokenGroups(self.tokens_per_cell, self.transformer.mask_token_id)

    def _run(self, steps: Iterator[StepState]) -> Iterator[StepState]:
        # Gradients are off for each step, not around the yields: a generator would otherwise
        # leave them off in the code that consumes it. Not inference mode: its tensors could not
        # be changed by who receives them.
        # On a CPU it is the packed layers that round.
        rounded = self.precision == "bfloat16" and self.device.type != "cpu"
        while True:
            with torch.no_grad(), self._rounding(rounded):
                state = next(steps, None)
            if state is None:
                return
            yield state

    def generate_steps(
        self, labels: Sequence[Label], config: SamplingConfig | None = None, seed: int = 0
    ) -> Iterator[StepState]:
        """Yield every decoding step of new images, one for each label.

        Args:
            labels: class names, numbers, or None for "no class".
            config: how to decode; None takes the checkpoint's defaults.
            seed: whole number in [0, 2**63), that of the last image too; image i uses seed + i.

        Raises:
            ValueError: no label, too many, an unknown one, or a seed out of range.
        """
        if isinstance(labels, str) or not hasattr(labels, "__len__") or len(labels) == 0:
            raise ValueError(f"labels must be a list with at least one class; got {labels!r}")
        check_range("number of labels", len(labels), 1, MAX_IMAGES, whole=True)
        grid = (len(labels), self.grid_size, self.grid_size)
        tokens = torch.full(grid, self.mask_token_id, dtype=torch.int64)
        return self.decode_tokens_steps(tokens, labels, config, seed)

    def generate(
        self, labels: Sequence[Label], config: SamplingConfig | None = None, seed: int = 0
    ) -> GenerateResult:
        """Return finished images; arguments and errors as `generate_steps`."""
        for state in self.generate_steps(labels, config, seed):
            tokens = state.tokens
        return GenerateResult(self.decode(tokens), tokens.cpu())

    def edit_steps(
        self,
        plan: EditPlan,
        label: Label = None,
        config: SamplingConfig | None = None,
        seed: int = 0,
        count: int = 1,
    ) -> Iterator[StepState]:
        """Yield every decoding step of `count` variations of a planned edit."""
        known = self.encode(plan.blanked)
        tokens = known.masked_fill(plan.token_mask.cpu(), self.mask_token_id)
        return self.decode_tokens_steps(tokens.repeat(count, 1, 1), [label] * count, config, seed)

    def plan_inpaint(
        self, image: Image.Image, pixel_mask: PixelMask, box: Sequence[int] | None = None
    ) -> EditPlan:
        """Return what `edit_steps` and `finish` need to repaint a part of a photo.

        Args:
            image, pixel_mask: as in `inpaint_steps`.
            box: the part of the photo that the network sees, as in `plan_edit`.
        """
        return plan_edit(image, pixel_mask, self.image_size, self.grid_size, box=box)

    def plan_outpaint(self, image: Image.Image, **sides: float) -> EditPlan:
        """Return what `edit_steps` and `finish` need to extend a photo; see `plan.plan_outpaint`.

        Args:
            image: any size and mode.
            sides: how far to the `left`, `right`, `up`, `down`, as shares of its width or height.
        """
        shares: dict[str, Any] = dict(sides)
        return plan_outpaint(image, self.image_size, self.grid_size, **shares)

    def finish(self, plan: EditPlan, tokens: Tensor) -> Image.Image:
        """Return the photo with the decoded tokens int64 (1, h, w) in its painted area."""
        return finish_edit(plan, self.decode(tokens.cpu()))

    def inpaint_steps(
        self,
        image: Image.Image,
        pixel_mask: PixelMask,
        label: Label = None,
        config: SamplingConfig | None = None,
        seed: int = 0,
        *,
        box: Sequence[int] | None = None,
    ) -> Iterator[StepState]:
        """Yield every decoding step of the repainting of a part of a photo.

        Args:
            image: any size and mode, taken as it lies in memory: mask, box and result are in the
                frame of `image.size`, whatever its EXIF orientation says.
            pixel_mask: bool (H, W) of the image's size, True = repaint; or an image of that size,
                bright = repaint; see `masks.as_pixel_mask`.
            label: class of the new content; None leaves it open.
            config: how to decode; None takes the checkpoint's defaults.
            seed: whole number in [0, 2**63).
            box: (left, top, right, bottom), the part of the photo that the network sees; None
                chooses a tight one around the painted area; see `plan.plan_edit`.

        Raises:
            ValueError: nothing painted, a mask of another size, a box that does not hold what is
                painted, an unknown class or a bad seed.
        """
        plan = self.plan_inpaint(image, pixel_mask, box)
        return self.edit_steps(plan, label, config, seed)

    def inpaint(
        self,
        image: Image.Image,
        pixel_mask: PixelMask,
        label: Label = None,
        config: SamplingConfig | None = None,
        seed: int = 0,
        *,
        box: Sequence[int] | None = None,
    ) -> InpaintResult:
        """Return the photo with the painted part filled; arguments as `inpaint_steps`.

        Kept pixels are those of the photo: bit for bit where it is RGB, RGBA, palette or plain
        grey; other modes become 8-bit sRGB first (see `plan.composite`).
        """
        plan = self.plan_inpaint(image, pixel_mask, box)
        return self._finished(plan, label, config, seed)

    def outpaint(
        self,
        image: Image.Image,
        label: Label = None,
        config: SamplingConfig | None = None,
        seed: int = 0,
        **sides: float,
    ) -> InpaintResult:
        """Return the photo on a larger canvas, the rest filled; see `editing.plan_outpaint`."""
        plan = self.plan_outpaint(image, **sides)
        return self._finished(plan, label, config, seed)

    def _finished(
        self, plan: EditPlan, label: Label, config: SamplingConfig | None, seed: int
    ) -> InpaintResult:
        for state in self.edit_steps(plan, label, config, seed):
            tokens = state.tokens
        return InpaintResult(self.finish(plan, tokens), tokens.cpu())
