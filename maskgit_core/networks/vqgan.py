"""Convolutional VQ tokenizers of the published MaskGIT models, as one network.

Four families are the same encoder, quantiser and decoder with few differences (`style`):

- `attention`: VQGAN of taming-transformers (Esser et al. 2021, Sec. 3.1) and, with a small
  codebook of unit length, LlamaGen's tokenizer (Sun et al. 2024, Sec. 2.1).
- `plain`: the tokenizer of the original MaskGIT (Chang et al. 2022), without attention, strided
  convolutions and projections around the quantiser. Inside it works on [0, 1].
- `bits`: the tokenizer of MaskBit (Weber et al. 2024), as `plain` with strided convolutions. Each
  channel of the latents is one bit of the id, so there is no codebook to look up.

The networks are convolutional: any image size that is a multiple of the stride works.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from maskgit_core.config import check_choice, check_range
from maskgit_core.networks.tokenizer import BitQuantizer, VectorQuantizer

STYLES = ("attention", "plain", "bits")
GROUPS = 32


@dataclass(frozen=True)
class VQGANConfig:
    """Shape of a published tokenizer.

    Args:
        style: `attention`, `plain` or `bits`, see the module's docstring.
        image_size: pixels a side that a transformer was trained for; a multiple of
            `patch_stride`.
        stem_width: channels after the first convolution, a multiple of 32.
        widths: channels of each resolution, finest first, multiples of 32. The finest runs at
            the image's resolution, so `patch_stride` is 2 ** (len(widths) - 1).
        num_blocks: residual blocks of a resolution in the encoder.
        attention_levels: resolutions, counted from the finest, with attention after every block
            (style `attention` only).
        latent_dim: channels of the latents.
        codebook_size: K, number of codes; 2 ** codebook_dim in style `bits`.
        codebook_dim: length of a codebook vector; equal to `latent_dim` but in style `attention`.
        l2_normalize: compare and decode codes on the unit sphere.

    Raises:
        ValueError: a value out of range.
    """

    style: str = "attention"
    image_size: int = 256
    stem_width: int = 128
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    num_blocks: int = 2
    attention_levels: tuple[int, ...] = (4,)
    latent_dim: int = 256
    codebook_size: int = 1024
    codebook_dim: int = 256
    l2_normalize: bool = False

    def __post_init__(self) -> None:
        check_choice("style", self.style, STYLES)
        for name in ("num_blocks", "latent_dim", "codebook_dim"):
            check_range(name, getattr(self, name), 1, whole=True)
        check_range("codebook_size", self.codebook_size, 2, whole=True)
        if not self.widths or any(w < 1 or w % GROUPS for w in (self.stem_width, *self.widths)):
            raise ValueError(
                f"stem_width and widths must be multiples of {GROUPS}, at least one width; "
                f"got {self.stem_width} and {self.widths}"
            )
        if any(not 0 <= level < len(self.widths) for level in self.attention_levels):
            raise ValueError(
                f"attention_levels must lie in 0..{len(self.widths) - 1}; "
                f"got {self.attention_levels}"
            )
        if not self.attends and (self.attention_levels or self.codebook_dim != self.latent_dim):
            raise ValueError(
                f"style {self.style!r} has no attention_levels and a codebook_dim equal to "
                f"latent_dim; got {self.attention_levels}, {self.codebook_dim} and "
                f"{self.latent_dim}"
            )
        if self.style == "bits" and self.codebook_size != 2**self.codebook_dim:
            raise ValueError(
                f"codebook_size must be 2 ** codebook_dim, {2**self.codebook_dim}, in style "
                f"'bits'; got {self.codebook_size}"
            )
        check_range("image_size", self.image_size, self.patch_stride, whole=True)
        if self.image_size % self.patch_stride:
            raise ValueError(
                f"image_size must be a multiple of {self.patch_stride}; got {self.image_size}"
            )

    @property
    def patch_stride(self) -> int:
        """Pixels a side of one token."""
        return 2 ** (len(self.widths) - 1)

    @property
    def grid_size(self) -> int:
        """Tokens a side."""
        return self.image_size // self.patch_stride

    @property
    def attends(self) -> bool:
        """Whether the style has attention, biases and projections."""
        return self.style == "attention"

    @property
    def strided(self) -> bool:
        """Whether strided convolutions, not means, halve the resolution."""
        return self.style != "plain"

    @property
    def decoder_blocks(self) -> int:
        """Residual blocks of a resolution in the decoder."""
        return self.num_blocks + 1 if self.attends else self.num_blocks


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the group norm of all families."""
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with a skip.

    Where the width changes, style `attention` projects the block's input for the skip; style
    `plain` projects the result of the second convolution instead and drops the input. That is
    how the original MaskGIT's weights were trained.
    """

    def __init__(self, width_in: int, width_out: int, config: VQGANConfig) -> None:
        super().__init__()
        self.from_input = bias = config.attends
        self.norm1 = group_norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1, bias=bias)
        self.norm2 = group_norm(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=bias)
        self.shortcut = None
        if width_in != width_out:
            source = width_in if self.from_input else width_out
            self.shortcut = nn.Conv2d(source, width_out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (B, C, H, W) to float (B, C', H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        if self.shortcut is None:
            return x + hidden
        return self.shortcut(x if self.from_input else hidden) + hidden


class SpatialAttention(nn.Module):
    """Single-head attention over all positions of a feature map, with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (B, C, H, W) to float (B, C, H, W)."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, H * W, C)
        return x + self.out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where the level has it.

    Args:
        resize: convolution that changes the resolution after the blocks, if any.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        num_blocks: int,
        config: VQGANConfig,
        *,
        attention: bool,
        resize: nn.Module | None,
    ) -> None:
        super().__init__()
        widths = [width_in, *[width_out] * num_blocks]
        self.blocks = nn.ModuleList(
            ConvBlock(widths[index], widths[index + 1], config) for index in range(num_blocks)
        )
        self.attention = nn.ModuleList(
            SpatialAttention(width_out) for _ in range(num_blocks if attention else 0)
        )
        self.resize = resize

    def forward(self, x: Tensor) -> Tensor:
        """Map float (B, C, H, W) to float (B, C', H, W), before the resizing."""
        for index, block in enumerate(self.blocks):
            x = block(x)
            if self.attention:
                x = self.attention[index](x)
        return x


def middle_of(config: VQGANConfig) -> nn.Sequential:
    """Return the blocks at the coarsest resolution, between encoder or decoder and latents."""
    width = config.widths[-1]
    if config.attends:
        return nn.Sequential(
            ConvBlock(width, width, config),
            SpatialAttention(width),
            ConvBlock(width, width, config),
        )
    return nn.Sequential(*(ConvBlock(width, width, config) for _ in range(config.num_blocks)))


class VQGANEncoder(nn.Module):
    """Images to latents."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = (config.stem_width, *config.widths)
        last = len(config.widths) - 1
        self.stem = nn.Conv2d(3, config.stem_width, 3, padding=1, bias=config.attends)
        self.levels = nn.ModuleList(
            Level(
                widths[level],
                widths[level + 1],
                config.num_blocks,
                config,
                attention=level in config.attention_levels,
                resize=nn.Conv2d(widths[level + 1], widths[level + 1], 3, stride=2)
                if config.strided and level < last
                else None,
            )
            for level in range(last + 1)
        )
        self.middle = middle_of(config)
        self.norm = group_norm(widths[-1])
        kernel = 3 if config.attends else 1
        self.head = nn.Conv2d(widths[-1], config.latent_dim, kernel, padding=kernel // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Map float (B, 3, H, W) to float (B, latent_dim, h, w)."""
        x = self.stem(images)
        for index, level in enumerate(self.levels):
            x = level(x)
            if level.resize is not None:
                x = level.resize(F.pad(x, (0, 1, 0, 1)))
            elif index < len(self.levels) - 1:
                x = F.avg_pool2d(x, 2)
        return self.head(F.silu(self.norm(self.middle(x))))


class VQGANDecoder(nn.Module):
    """Latents to images; `levels` is ordered finest first and runs from the last to the first."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        widths = (*config.widths, config.widths[-1])
        self.stem = nn.Conv2d(config.latent_dim, widths[-1], 3, padding=1)
        self.middle = middle_of(config)
        self.levels = nn.ModuleList(
            Level(
                widths[level + 1],
                widths[level],
                config.decoder_blocks,
                config,
                attention=level in config.attention_levels,
                resize=nn.Conv2d(widths[level], widths[level], 3, padding=1) if level else None,
            )
            for level in range(len(config.widths))
        )
        self.norm = group_norm(widths[0])
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map float (B, latent_dim, h, w) to float (B, 3, H, W), not clamped."""
        x = self.middle(self.stem(latents))
        for level in reversed(self.levels):
            x = level(x)
            if level.resize is not None:
                x = level.resize(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.head(F.silu(self.norm(x)))


class VQGAN(nn.Module):
    """A published VQ tokenizer; images are in [-1, 1] whatever the network uses inside.

    Args:
        config: the shape; kept as `config`.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        latent, code = config.latent_dim, config.codebook_dim
        self.encoder = VQGANEncoder(config)
        self.to_code = nn.Conv2d(latent, code, 1) if config.attends else None
        self.quantizer: nn.Module = BitQuantizer(code)
        if config.style != "bits":
            self.quantizer = VectorQuantizer(
                config.codebook_size, code, l2_normalize=config.l2_normalize
            )
        self.from_code = nn.Conv2d(code, latent, 1) if config.attends else None
        self.decoder = VQGANDecoder(config)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents float (B, codebook_dim, h, w) that are quantised, of images float32
        (B, 3, H, W) in [-1, 1].
        """
        if self.to_code is None:
            return self.encoder((images + 1) / 2)
        return self.to_code(self.encoder(images))

    def encode_to_tokens(self, images: Tensor) -> Tensor:
        """Return the tokens int64 (B, h, w) of images float32 (B, 3, H, W) in [-1, 1]."""
        return self.quantizer.nearest(self.encode(images))

    def decode_tokens(self, tokens: Tensor) -> Tensor:
        """Return images float32 (B, 3, H, W), near [-1, 1], of tokens int64 (B, h, w) in [0, K)."""
        codes = self.quantizer.lookup(tokens)
        if self.from_code is None:
            return self.decoder(codes) * 2 - 1
        return self.decoder(self.from_code(codes))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images float32 (B, 3, H, W) in [-1, 1]."""
        return self.decode_tokens(self.encode_to_tokens(images))
