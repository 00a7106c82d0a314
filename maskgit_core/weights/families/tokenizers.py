"""The published tokenizers: names, and configurations read from shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from maskgit_core.files import CheckpointError
from maskgit_core.networks.vqgan import VQGAN, VQGANConfig
from maskgit_core.weights.families.family import Family, configured, count, rename, shape_of
from maskgit_core.weights.rules import Rule, Shape

# The family's own training resolution, where nothing says otherwise.
DEFAULT_SIZE = 256
# Our setting -> the names that the published configuration files have for it.
SETTING_NAMES = {
    "image_size": ("resolution", "image_size"),
    "l2_normalize": ("l2_norm", "codebook_l2_norm"),
    "codebook_size": ("n_embed", "num_embeddings", "codebook_size"),
    "codebook_dim": ("embed_dim", "quantized_embed_dim", "codebook_embed_dim", "token_size"),
    "latent_dim": ("z_channels",),
    "stem_width": ("ch", "hidden_channels"),
    "num_blocks": ("num_res_blocks",),
}
FREE_SETTINGS = ("image_size", "l2_normalize")


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of nested dicts by their innermost name."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat.update(flat_settings(value) if isinstance(value, Mapping) else {key: value})
    return flat


def published_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a published configuration into our settings; what we do not need is left out."""
    flat = flat_settings(config)
    return {
        ours: flat[theirs]
        for ours, names in SETTING_NAMES.items()
        for theirs in names
        if theirs in flat
    }


def finish(
    settings: dict[str, Any], given: Mapping[str, Any], *, unheeded: tuple[str, ...] = ()
) -> VQGANConfig:
    """Add to the settings read from shapes what a configuration file says.

    Args:
        settings: read from shapes.
        given: the published configuration.
        unheeded: settings of ours that the family's own code does not read either.

    Raises:
        CheckpointError: the two contradict each other.
    """
    said = published_settings(given)
    for name, value in said.items():
        if name not in (*FREE_SETTINGS, *unheeded) and value != settings[name]:
            raise CheckpointError(
                f"the configuration says {name} {value!r}, the weights have {settings[name]!r}"
            )
    size = said.get("image_size", DEFAULT_SIZE)
    settings = {**settings, "image_size": size}
    if "l2_normalize" in said:
        settings["l2_normalize"] = bool(said["l2_normalize"])
    return configured(VQGANConfig, **settings)


def torch_settings(shapes: Mapping[str, Shape], level: str, block: str) -> dict[str, Any]:
    """Read the settings that all PyTorch families show in the same way.

    Args:
        level: name of the encoder's resolutions, with its index to follow.
        block: name of a resolution's blocks.
    """
    pattern = re.escape(level)
    levels = count(shapes, rf"{pattern}(\d+)\.")
    codes, dim = shape_of(shapes, "quantize.embedding.weight", 2)
    attention = {
        int(match[1])
        for match in (re.match(rf"{pattern}(\d+)\.attn\.", name) for name in shapes)
        if match
    }
    return {
        "stem_width": shape_of(shapes, "encoder.conv_in.weight", 4)[0],
        "widths": tuple(
            shape_of(shapes, f"{level}{index}.{block}.0.conv1.weight", 4)[0]
            for index in range(levels)
        ),
        "num_blocks": count(shapes, rf"{pattern}0\.{block}\.(\d+)\."),
        "attention_levels": tuple(sorted(attention)),
        "latent_dim": shape_of(shapes, "encoder.conv_out.weight", 4)[0],
        "codebook_size": codes,
        "codebook_dim": dim,
    }


def configure_taming(shapes: Mapping[str, Shape], given: Mapping[str, Any]) -> VQGANConfig:
    """Read the configuration of a taming-transformers VQGAN."""
    return finish(
        {**torch_settings(shapes, "encoder.down.", "block"), "l2_normalize": False}, given
    )


def configure_llamagen(shapes: Mapping[str, Shape], given: Mapping[str, Any]) -> VQGANConfig:
    """Read the configuration of a LlamaGen tokenizer."""
    settings = torch_settings(shapes, "encoder.conv_blocks.", "res")
    return finish({**settings, "l2_normalize": True}, given)


def configure_plain(shapes: Mapping[str, Shape], given: Mapping[str, Any]) -> VQGANConfig:
    """Read the configuration of the PyTorch form of the original MaskGIT's tokenizer."""
    settings = torch_settings(shapes, "encoder.down.", "block")
    return finish({**settings, "style": "plain", "l2_normalize": False}, given)


def configure_flax(shapes: Mapping[str, Shape], given: Mapping[str, Any]) -> VQGANConfig:
    """Read the configuration of the original MaskGIT's tokenizer.

    The residual blocks are numbered through; the resolutions show only in the enlarging
    convolutions of the decoder, one between two of them.
    """
    levels = count(shapes, r"decoder/Conv_(\d+)/") - 1
    total = count(shapes, r"encoder/ResBlock_(\d+)/")
    if levels < 1 or total % (levels + 1):
        raise CheckpointError(
            f"{total} residual blocks of the encoder do not spread over {levels} resolutions and "
            "a middle"
        )
    blocks = total // (levels + 1)
    codes, dim = shape_of(shapes, "quantizer/codebook", 2)
    settings = {
        "style": "plain",
        "stem_width": shape_of(shapes, "encoder/Conv_0/kernel", 4)[3],
        "widths": tuple(
            shape_of(shapes, f"encoder/ResBlock_{level * blocks}/Conv_0/kernel", 4)[3]
            for level in range(levels)
        ),
        "num_blocks": blocks,
        "attention_levels": (),
        "latent_dim": shape_of(shapes, "encoder/Conv_1/kernel", 4)[3],
        "codebook_size": codes,
        "codebook_dim": dim,
        "l2_normalize": False,
    }
    return finish(settings, given)


COMMON_NAMES = (
    (r"^to_code\.", "quant_conv."),
    (r"^from_code\.", "post_quant_conv."),
    (r"^quantizer\.codebook$", "quantize.embedding.weight"),
    (r"^(\w+)\.stem\.", r"\1.conv_in."),
    (r"^(\w+)\.norm\.", r"\1.norm_out."),
    (r"^(\w+)\.head\.", r"\1.conv_out."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"\.middle\.", ".mid."),
    (r"\.attention\.(\d+)", r".attn.\1"),
    (r"\.out\.(weight|bias)$", r".proj_out.\1"),
)
LEVEL_NAMES = (
    (r"^encoder\.levels\.(\d+)\.blocks\.", r"encoder.down.\1.block."),
    (r"^encoder\.levels\.(\d+)\.resize\.", r"encoder.down.\1.downsample.conv."),
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.(\d+)\.blocks\.", r"decoder.up.\1.block."),
    (r"^decoder\.levels\.", "decoder.up."),
)
TAMING_NAMES = (
    *LEVEL_NAMES,
    (r"(decoder\.up\.\d+)\.resize\.", r"\1.upsample.conv."),
    *COMMON_NAMES,
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
)
PLAIN_NAMES = (
    *LEVEL_NAMES,
    (r"(decoder\.up\.\d+)\.resize\.", r"\1.upsample_conv."),
    *COMMON_NAMES,
)
LLAMAGEN_NAMES = (
    (r"\.levels\.(\d+)\.blocks\.", r".conv_blocks.\1.res."),
    (r"^encoder\.levels\.(\d+)\.resize\.", r"encoder.conv_blocks.\1.downsample.conv."),
    (r"^decoder\.levels\.(\d+)\.resize\.", r"decoder.conv_blocks.\1.upsample.conv."),
    (r"\.levels\.", ".conv_blocks."),
    *COMMON_NAMES,
)


def qkv_rule(name: str) -> Rule:
    """Return the rule of a renamed tensor; attention inputs come from three convolutions."""
    if ".qkv." in name:
        return Rule(tuple(name.replace(".qkv.", f".{part}.") for part in "qkv"), "stack")
    return Rule((name,))


def taming_rule(name: str, config: VQGANConfig) -> Rule:
    """Return the sources of one of our tensors in a taming-transformers file."""
    return qkv_rule(rename(name, TAMING_NAMES))


def plain_rule(name: str, config: VQGANConfig) -> Rule:
    """Return the source of one of our tensors in an open-muse file."""
    return Rule((rename(name, PLAIN_NAMES),))


def coarse_first(name: str, config: VQGANConfig) -> str:
    """Return one of our names with the decoder's levels counted from the coarsest."""
    if match := re.match(r"decoder\.levels\.(\d+)", name):
        return f"decoder.levels.{len(config.widths) - 1 - int(match[1])}{name[match.end() :]}"
    return name


def llamagen_rule(name: str, config: VQGANConfig) -> Rule:
    """Return the sources of one of our tensors in a LlamaGen file."""
    return qkv_rule(rename(coarse_first(name, config), LLAMAGEN_NAMES))


def flax_rule(name: str, config: VQGANConfig) -> Rule:
    """Return the source of one of our tensors in a file of the original MaskGIT."""
    if name == "quantizer.codebook":
        return Rule(("quantizer/codebook",))
    side, *inner, leaf = name.split(".")
    levels, blocks = len(config.widths), config.num_blocks
    if inner[0] in ("levels", "middle") and inner[2] != "resize":
        if inner[0] == "middle":
            index = int(inner[1]) + (levels * blocks if side == "encoder" else 0)
        else:
            level = int(inner[1])
            order = level if side == "encoder" else levels - level
            # The decoder's middle comes before its resolutions, as one more of them.
            index = order * blocks + int(inner[3])
        part = f"ResBlock_{index}/"
        part += {
            "norm1": "GroupNorm_0",
            "conv1": "Conv_0",
            "norm2": "GroupNorm_1",
            "conv2": "Conv_1",
            "shortcut": "Conv_2",
        }[inner[-1]]
    elif inner[0] == "levels":
        part = f"Conv_{levels - int(inner[1])}"
    else:
        last = 1 if side == "encoder" else levels
        part = {"stem": "Conv_0", "norm": "GroupNorm_0", "head": f"Conv_{last}"}[inner[0]]
    if leaf == "bias":
        return Rule((f"{side}/{part}/bias",))
    if "Norm" in part:
        return Rule((f"{side}/{part}/scale",))
    return Rule((f"{side}/{part}/kernel",), "conv")


VQGAN_FAMILIES = (
    Family(
        "LlamaGen tokenizer",
        "tokenizer",
        (r"(en|de)coder\.conv_blocks\.",),
        VQGAN,
        configure_llamagen,
        llamagen_rule,
        # Counts of code use in training.
        ignored=r"quantize\.codebook_used$",
    ),
    Family(
        "taming-transformers VQGAN",
        "tokenizer",
        (r"(post_)?quant_conv\.", r"(en|de)coder\.mid\.(block|attn)_"),
        VQGAN,
        configure_taming,
        taming_rule,
        # Networks of the training loss.
        ignored=r"loss\.",
    ),
    Family(
        "MaskGIT tokenizer (open-muse)",
        "tokenizer",
        (r"encoder\.down\.", r"decoder\.up\."),
        VQGAN,
        configure_plain,
        plain_rule,
    ),
    Family(
        "original MaskGIT tokenizer (flax)",
        "tokenizer",
        (r"(en|de)coder/ResBlock_\d", r"quantizer/codebook"),
        VQGAN,
        configure_flax,
        flax_rule,
    ),
)
