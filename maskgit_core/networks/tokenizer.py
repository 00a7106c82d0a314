"""VQ tokenizer: pixels to a grid of codebook ids and back (VQ-VAE, van den Oord et al. 2017).

The networks are thin at full resolution, where a CPU spends its time, and thick at the token grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.config import TokenizerConfig
from maskgit_core.networks.layers import ResBlock


class Quantized(NamedTuple):
    """What the quantiser returns.

    Attributes:
        latents: float32 (B, codebook_dim, h, w), nearest codes; gradients pass straight through.
        tokens: int64 (B, h, w), in [0, K).
        codebook_loss: float32 (), squared distance that moves the codes to the latents.
        commit_loss: float32 (), squared distance that moves the latents to the codes.
    """

    latents: Tensor
    tokens: Tensor
    codebook_loss: Tensor
    commit_loss: Tensor


class VectorQuantizer(nn.Module):
    """Nearest-codebook-vector quantiser with a trainable codebook.

    Args:
        codebook_size: K.
        codebook_dim: length of a vector.
        l2_normalize: compare and return vectors of unit length (Yu et al. 2022, Sec. 3.2).
    """

    def __init__(self, codebook_size: int, codebook_dim: int, *, l2_normalize: bool) -> None:
        super().__init__()
        self.l2_normalize = l2_normalize
        self.codebook = nn.Parameter(torch.randn(codebook_size, codebook_dim) / codebook_dim**0.5)

    def normalized(self, vectors: Tensor, dim: int = -1) -> Tensor:
        """Return the vectors as the quantiser compares them, in float32."""
        vectors = vectors.float()
        return F.normalize(vectors, dim=dim) if self.l2_normalize else vectors

    def nearest(self, latents: Tensor) -> Tensor:
        """Return int64 (B, h, w), the nearest code of every latent, float (B, dim, h, w).

        Distances are computed in float32 under autocast too.
        """
        with torch.autocast(latents.device.type, enabled=False):
            flat = self.normalized(latents.movedim(1, -1))  # (B, h, w, dim)
            codes = self.normalized(self.codebook)
            # |z - e|^2 without the |z|^2 that every code shares
            distance = (codes**2).sum(-1) - 2 * flat @ codes.T
        return distance.argmin(-1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Return float32 (B, dim, h, w), the code of every token, int64 (B, h, w)."""
        return self.normalized(F.embedding(tokens, self.codebook)).movedim(-1, 1)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise float (B, dim, h, w)."""
        tokens = self.nearest(latents)
        codes = self.lookup(tokens)
        latents = self.normalized(latents, dim=1)
        codebook_loss = (codes - latents.detach()).square().sum(1).mean()
        commit_loss = (codes.detach() - latents).square().sum(1).mean()
        straight_through = latents + (codes - latents).detach()
        return Quantized(straight_through, tokens, codebook_loss, commit_loss)


class BitQuantizer(nn.Module):
    """Quantiser without a codebook: the sign of each channel is one bit (Weber et al. 2024).

    Args:
        bits: channels of the latents; bit i of an id, the least significant first, is channel i.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    @property
    def codebook(self) -> Tensor:
        """The vectors of all ids, float32 (2 ** bits, bits)."""
        return self.lookup(torch.arange(2**self.bits).view(-1, 1, 1)).flatten(1)

    def normalized(self, vectors: Tensor, dim: int = -1) -> Tensor:
        """Return the vectors in float32, as `VectorQuantizer.normalized` does."""
        return vectors.float()

    def nearest(self, latents: Tensor) -> Tensor:
        """Return int64 (B, h, w), the ids of latents float (B, bits, h, w); zero is bit 0."""
        places = torch.arange(self.bits, device=latents.device).view(-1, 1, 1)
        return ((latents > 0).long() << places).sum(1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """Return float32 (B, bits, h, w), -1 or 1, of ids int64 (B, h, w)."""
        places = torch.arange(self.bits, device=tokens.device).view(-1, 1, 1)
        return ((tokens.unsqueeze(1) >> places & 1) * 2 - 1).float()


class Encoder(nn.Module):
    """Pixels to latents: halve, refine, halve, refine."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        stages: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                stages.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            stages += [ResBlock(width) for _ in range(config.encoder_blocks[level])]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(8, widths[-1])
        self.head = nn.Conv2d(widths[-1], config.codebook_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map float (B, 3, H, W) to float (B, codebook_dim, h, w)."""
        return self.head(F.silu(self.norm(self.stages(self.stem(images)))))


class Decoder(nn.Module):
    """Quantised latents to pixels.

    Channels are cut before a map is enlarged, and the last convolution runs over whole pixels, so
    that no pattern with the period of the enlargement is left.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = nn.Conv2d(config.codebook_dim, widths[-1], 3, padding=1)
        stages: list[nn.Module] = []
        for level in reversed(range(len(widths))):
            stages += [ResBlock(widths[level]) for _ in range(config.decoder_blocks[level])]
            if level:
                stages.append(nn.Conv2d(widths[level], widths[level - 1], 1))
                stages.append(nn.Upsample(scale_factor=2, mode="nearest"))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.GroupNorm(8, widths[0])
        self.enlarge = nn.Conv2d(widths[0], widths[0], 3, padding=1)
        self.head = nn.Conv2d(widths[0] // 4, 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float (B, codebook_dim, h, w) to float (B, 3, H, W), not clamped."""
        hidden = self.enlarge(F.silu(self.norm(self.stages(self.stem(latents)))))
        return self.head(F.silu(F.pixel_shuffle(hidden, 2)))


class VQTokenizer(nn.Module):
    """Convolutional VQ tokenizer: encoder, quantiser, decoder.

    Args:
        config: the shape; kept as `config`.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = VectorQuantizer(
            config.codebook_size, config.codebook_dim, l2_normalize=config.l2_normalize
        )
        self.decoder = Decoder(config)

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct float32 (B, 3, H, W) in [-1, 1]; returns (images, quantised latents)."""
        quantized = self.quantizer(self.encoder(images))
        return self.decoder(quantized.latents), quantized

    def encode_to_tokens(self, images: Tensor) -> Tensor:
        """Return the tokens int64 (B, h, w) of images float32 (B, 3, H, W) in [-1, 1]."""
        return self.quantizer.nearest(self.encoder(images))

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Return images float32 (B, 3, H, W), near [-1, 1], of tokens int64 (B, h, w) in [0, K)."""
        return self.decoder(self.quantizer.lookup(tokens))
