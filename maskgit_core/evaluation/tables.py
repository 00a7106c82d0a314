"""What the model under test makes of photos and labels, as stored tables of pixels and features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from maskgit_core.config import to_dict
from maskgit_core.data.fingerprints import hash_of_networks, hash_of_values
from maskgit_core.evaluation.data import PhotoSet, balanced_draw
from maskgit_core.evaluation.features import FeatureNetwork
from maskgit_core.evaluation.settings import EvaluationSettings
from maskgit_core.evaluation.store import TableStore
from maskgit_core.pixels import from_uint8, to_uint8

BATCH = 16
DRAWN = 5000  # photos that are reconstructed where there are no samples


class EvaluatedModel(Protocol):
    """The part of `pipeline.MaskGIT` that is measured; `generate` only where samples are asked."""

    classes: list[str]
    image_size: int
    mask_token_id: int
    tokenizer: nn.Module

    def encode(self, images: Tensor) -> Tensor:
        """Return tokens int64 (B, h, w)."""

    def decode(self, tokens: Tensor) -> Tensor:
        """Return images float32 (B, 3, H, W) in [-1, 1]."""


class TokenizerModel:
    """A tokenizer without a transformer, as a model that has no samples.

    Args:
        tokenizer: in evaluation mode.
        classes: names, label by label.
    """

    def __init__(self, tokenizer: nn.Module, classes: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.classes = list(classes)
        self.image_size: int = tokenizer.config.image_size
        self.mask_token_id: int = tokenizer.config.codebook_size

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Return tokens int64 (B, h, w)."""
        return self.tokenizer.encode_to_tokens(images.to(_device(self.tokenizer))).cpu()

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:
        """Return images float32 (B, 3, H, W) in [-1, 1]."""
        return self.tokenizer.decode_tokens(tokens.to(_device(self.tokenizer))).clamp(-1, 1).cpu()


class Images(NamedTuple):
    """Finished pictures: uint8 (num, H, W, 3), and a key that covers how they came about."""

    pixels: np.ndarray
    key: str

    def batch(self, rows: Sequence[int] | range) -> Tensor:
        """Return float32 (B, 3, H, W) in [-1, 1]."""
        return from_uint8(self.pixels[list(rows)])


@dataclass(frozen=True)
class Tables:
    """What every measure works with: features, reconstructions and samples, computed once.

    Attributes:
        model: the model under test.
        network: gives the features.
        shared: tables that do not depend on the model.
        own: tables that do.
    """

    model: EvaluatedModel
    network: FeatureNetwork
    shared: TableStore
    own: TableStore

    def photo_features(self, photos: PhotoSet, what: str) -> Tensor:
        """Return float32 (num, dim), features of real photos."""
        key = hash_of_values(photos.key, self.network.name, self.network.dim)
        rows = self.shared.rows(
            "features", key, len(photos), by_batch(lambda r: self.network(photos.images(r))), what
        )
        return torch.from_numpy(rows)

    def image_features(self, images: Images, what: str) -> Tensor:
        """Return float32 (num, dim), features of pictures that the model made."""
        key = hash_of_values(images.key, self.network.name, self.network.dim)
        compute = by_batch(lambda rows: self.network(images.batch(rows)))
        rows = self.own.rows("features", key, len(images.pixels), compute, what)
        return torch.from_numpy(rows)

    def reconstruct(self, photos: PhotoSet, places: Tensor, what: str) -> tuple[Tensor, Images]:
        """Return tokens int64 (num, h, w) and reconstructions of some photos of a set."""
        model = self.model
        key = hash_of_values(photos.key, places.tolist(), hash_of_networks(model.tokenizer))
        encode = by_batch(lambda rows: model.encode(photos.images(places[list(rows)])))
        found = self.own.rows("tokens", key, len(places), encode, f"encode {what}")
        tokens = torch.from_numpy(found)
        decode = by_batch(lambda rows: to_uint8(model.decode(tokens[list(rows)])))
        pixels = self.own.rows("pixels", key, len(places), decode, f"decode {what}")
        return tokens, Images(pixels, hash_of_values("reconstructions", key))

    def sample(self, labels: Sequence[int], settings: EvaluationSettings) -> Images:
        """Return one sample a label; sample i uses seed + i.

        The key holds the order in which labels repeat, not how many there are, so that more
        samples go on from fewer.
        """
        model: Any = self.model  # one that makes samples
        seed, config = settings.seed, settings.sampling
        networks = hash_of_networks(model.tokenizer, model.transformer)
        order = list(dict.fromkeys(labels))
        rounding = [getattr(model, "precision", "float32"), _device(model.transformer)]
        if rounding != ["float32", "cpu"]:
            # Anywhere else the size of a batch decides how sums are rounded, and so a token.
            rounding.append(settings.batch_size)
        key = hash_of_values("samples", networks, order, to_dict(config), seed, rounding)

        def draw(rows: range) -> Tensor:
            chosen = [labels[row] for row in rows]
            result = model.generate(chosen, config, seed=seed + rows.start)
            return to_uint8(result.images)

        compute = by_batch(draw, settings.batch_size)
        pixels = self.own.rows("samples", key, len(labels), compute, "draw samples")
        return Images(pixels, key)


def _device(network: nn.Module) -> str:
    return next(network.parameters()).device.type


def by_batch(compute: Callable[[range], Tensor], batch: int = BATCH) -> Callable[[range], Tensor]:
    """Return compute, called on a few rows at a time."""

    def run(rows: range) -> Tensor:
        return torch.cat([compute(rows[i : i + batch]) for i in range(0, len(rows), batch)])

    return run


@dataclass(frozen=True)
class Evidence:
    """Everything that the measures look at.

    Attributes:
        val: held-out photos.
        train: training photos; None where there are none.
        drawn: int64 (num,), places of the class-balanced draw of the reference photos.
        val_tokens: int64 (num, h, w), of all held-out photos.
        val_made: their reconstructions.
        samples: None where none were asked for.
        sample_labels: int64 (num,), the model's labels.
        features, val_features, val_made_features, drawn_made_features, sample_features: float32
            (num, dim), of the reference photos, the held-out photos, the reconstructions of the
            held-out and of the drawn photos, and the samples.
    """

    val: PhotoSet
    train: PhotoSet | None
    drawn: Tensor
    val_tokens: Tensor
    val_made: Images
    samples: Images | None
    sample_labels: Tensor
    features: Tensor
    val_features: Tensor
    val_made_features: Tensor
    drawn_made_features: Tensor
    sample_features: Tensor | None

    @property
    def reference(self) -> PhotoSet:
        """The photos that distances are taken to: those of training, where there are any."""
        return self.train or self.val


def gather(
    tables: Tables, val: PhotoSet, train: PhotoSet | None, settings: EvaluationSettings
) -> Evidence:
    """Compute every table that the measures need, or read what an earlier run finished.

    As many reference photos are drawn as there are samples; of a tokenizer alone, some thousand.

    Args:
        tables: of the model.
        val, train: see `Evidence`.
        settings: with the settings of decoding.
    """
    reference = train or val
    # Quick ones first, so that a mistake shows before hours of sampling.
    val_tokens, val_made = tables.reconstruct(val, torch.arange(len(val)), "val photos")
    val_features = tables.photo_features(val, "features: val")
    val_made_features = tables.image_features(val_made, "features: val, reconstructed")
    features = val_features if train is None else tables.photo_features(train, "features: train")
    drawn = balanced_draw(reference.labels, settings.num_samples or DRAWN, settings.seed)
    _, drawn_made = tables.reconstruct(reference, drawn, "drawn photos")
    drawn_made_features = tables.image_features(drawn_made, "features: drawn, reconstructed")
    order = reference.labels.unique().tolist()
    labels = [order[i % len(order)] for i in range(settings.num_samples)]
    samples = tables.sample(labels, settings) if labels else None
    return Evidence(
        val=val,
        train=train,
        drawn=drawn,
        val_tokens=val_tokens,
        val_made=val_made,
        samples=samples,
        sample_labels=torch.tensor(labels, dtype=torch.int64),
        features=features,
        val_features=val_features,
        val_made_features=val_made_features,
        drawn_made_features=drawn_made_features,
        sample_features=tables.image_features(samples, "features: samples") if samples else None,
    )
