"""MaskBit's generators and tokenizers: names, and configurations read from shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from maskgit_core.files import CheckpointError
from maskgit_core.networks.maskbit import MaskBitConfig, MaskBitTransformer
from maskgit_core.networks.vqgan import VQGAN, VQGANConfig
from maskgit_core.weights.families.family import (
    Family,
    configured,
    count,
    heads_for,
    rename,
    shape_of,
    side_of,
)
from maskgit_core.weights.families.sampling import maskbit_sampling
from maskgit_core.weights.families.tokenizers import COMMON_NAMES, coarse_first, finish
from maskgit_core.weights.rules import Rule, Shape

MASKBIT_HEADS = {1024: 16}
MOST_BITS = 24


def configure_maskbit(
    shapes: Mapping[str, Shape], num_heads: int | None, num_classes: int | None
) -> MaskBitConfig:
    """Read the configuration of a MaskBit generator.

    Raises:
        CheckpointError: the number of groups does not follow from the shapes.
    """
    width, bits = shape_of(shapes, "input_proj.weight", 2)
    classes = shape_of(shapes, "class_emb.weight", 2)[0] - 1
    if num_classes not in (None, classes):
        raise ValueError(f"num_classes must be {classes} for these weights; got {num_classes}")
    inner = shape_of(shapes, "transformer.layers.0.0.mha.in_proj_weight", 2)[0] // 3
    return configured(
        MaskBitConfig,
        bits=bits,
        groups=groups_of(shapes, bits),
        num_classes=classes,
        grid_size=side_of(shape_of(shapes, "pos_emb", 3)[1] - 1, "pos_emb"),
        width=width,
        depth=count(shapes, r"transformer\.layers\.(\d+)\."),
        num_heads=heads_for(width, num_heads, MASKBIT_HEADS, inner),
        mlp_width=shape_of(shapes, "transformer.layers.0.1.net.0.weight", 2)[0],
    )


def groups_of(shapes: Mapping[str, Shape], bits: int) -> int:
    """Return into how many groups a cell's bits are divided.

    The output layer has G * 2 ** (bits / G) columns, which two numbers of groups can share; a
    buffer as long as a group then decides.

    Raises:
        CheckpointError: no number of groups, or more than one, fits.
    """
    columns = shape_of(shapes, "prediction_layer.weight", 2)[0]
    fitting = [g for g in range(1, bits + 1) if bits % g == 0 and g * 2 ** (bits // g) == columns]
    if "bits_to_indices" in shapes:
        length = shape_of(shapes, "bits_to_indices", 1)[0]
        fitting = [groups for groups in fitting if groups * length == bits]
    if len(fitting) != 1:
        raise CheckpointError(
            f"the weights cannot be used; prediction_layer.weight with {columns} rows fits "
            f"{'several' if fitting else 'no'} divisions of {bits} bits into groups"
        )
    return fitting[0]


def maskbit_rule(name: str, config: MaskBitConfig) -> Rule:
    """Return the source of one of our tensors in a MaskBit file."""
    if name == "position":
        return Rule(("pos_emb",), "batched")
    *_, leaf = name.split(".")
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(?:weight|bias)", name):
        inside = {
            "attention.qkv": "0.mha.in_proj_",
            "attention.out": "0.mha.out_proj.",
            "norm1": "0.norm.",
            "mlp.up": "1.net.0.",
            "mlp.down": "1.net.2.",
            "norm2": "1.norm.",
        }[match[2]]
        return Rule((f"transformer.layers.{match[1]}.{inside}{leaf}",))
    source = {
        "stem": "input_proj",
        "class_embedding": "class_emb",
        "norm": "first_layer.0",
        "head": "last_layer.0",
        "head_norm": "last_layer.2",
        "output": "prediction_layer",
    }[name.rpartition(".")[0]]
    return Rule((f"{source}.{leaf}",))


def configure_bits(shapes: Mapping[str, Shape], given: Mapping[str, Any]) -> VQGANConfig:
    """Read the configuration of a MaskBit tokenizer, whose channels of latents are bits."""
    level = r"encoder\.down\.(\d+)\."
    bits = shape_of(shapes, "encoder.conv_out.weight", 4)[0]
    if bits > MOST_BITS:
        raise CheckpointError(f"a tokenizer of {bits} bits has more ids than are supported")
    settings = {
        "style": "bits",
        "stem_width": shape_of(shapes, "encoder.conv_in.weight", 4)[0],
        "widths": tuple(
            shape_of(shapes, f"encoder.down.{index}.res_blocks.0.conv1.weight", 4)[0]
            for index in range(count(shapes, level))
        ),
        "num_blocks": count(shapes, r"encoder\.down\.0\.res_blocks\.(\d+)\."),
        "attention_levels": (),
        "latent_dim": bits,
        "codebook_size": 2**bits,
        "codebook_dim": bits,
        "l2_normalize": False,
    }
    # Its published configurations name a number of codes that its code replaces by 2 ** bits.
    return finish(settings, given, unheeded=("codebook_size",))


BITS_NAMES = (
    (r"^encoder\.levels\.(\d+)\.blocks\.", r"encoder.down.\1.res_blocks."),
    (r"^encoder\.levels\.(\d+)\.resize\.", r"encoder.down.\1.down_conv."),
    (r"^decoder\.levels\.(\d+)\.blocks\.", r"decoder.up.\1.res_blocks."),
    (r"^decoder\.levels\.(\d+)\.resize\.", r"decoder.up.\1.upsample_conv."),
    *COMMON_NAMES,
    (r"\.mid\.(\d+)\.", r".mid.res_blocks.\1."),
)


def bits_rule(name: str, config: VQGANConfig) -> Rule:
    """Return the source of one of our tensors in a MaskBit file."""
    return Rule((rename(coarse_first(name, config), BITS_NAMES),))


MASKBIT = Family(
    "MaskBit generator",
    "transformer",
    (r"prediction_layer\.", r"transformer\.layers\.\d+\.0\.mha\."),
    MaskBitTransformer,
    configure_maskbit,
    maskbit_rule,
    # Powers of two, as many as a group has bits.
    ignored=r"bits_to_indices$",
    # What published generators call the first layer; its code has since given it another name.
    aliases=((r"^token_emb\.", "input_proj."),),
    sampling=lambda config: maskbit_sampling(config.bits),
)
MASKBIT_TOKENIZER = Family(
    "MaskBit tokenizer",
    "tokenizer",
    (r"(en|de)coder\.(down|up)\.\d+\.res_blocks\.", r"encoder\.down\.\d+\.down_conv\."),
    VQGAN,
    configure_bits,
    bits_rule,
    # Both follow from the number of bits.
    ignored=r"quantize\.(bits_to_indices|codebook)$",
)
