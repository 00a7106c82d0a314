"""The published masked transformers: names, and configurations read from shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from maskgit_core.config import TransformerConfig, check_range
from maskgit_core.files import CheckpointError
from maskgit_core.networks.bert import BertConfig, BertTransformer
from maskgit_core.networks.transformer import AdaLNMaskedTransformer, MaskedTransformer
from maskgit_core.weights.families.family import (
    Family,
    configured,
    count,
    heads_for,
    shape_of,
    side_of,
)
from maskgit_core.weights.families.sampling import (
    google_sampling,
    halton_sampling,
    v1_sampling,
)
from maskgit_core.weights.rules import Rule, Shape

# Width -> heads of the published sizes; a file does not say how its width is split.
HALTON_HEADS = {384: 6, 512: 6, 768: 12, 1024: 16, 1152: 16}
V1_HEADS = {768: 16}
IMAGENET_CLASSES = 1000
PUBLISHED_CODES = 1024


def split_rows(rows: int, extra: int, num_classes: int | None) -> tuple[int, int]:
    """Split the rows of a table that holds codes and classes; returns (codes, classes).

    Only the sum can be read from a file. Without num_classes it must be that of the published
    files, 1,024 codes and 1,000 classes.

    Args:
        rows: all rows.
        extra: rows that are neither a code nor a class.
        num_classes: what the caller knows, if anything.

    Raises:
        ValueError: num_classes leaves fewer than two codes.
        CheckpointError: it is not given, and nothing shows it.
    """
    both = rows - extra
    if num_classes is None:
        if both != PUBLISHED_CODES + IMAGENET_CLASSES:
            raise CheckpointError(
                f"the weights have {both} codes and classes together and do not say how many of "
                "each; give the number of classes: --num-classes (num_classes in Python)"
            )
        num_classes = IMAGENET_CLASSES
    check_range("num_classes", num_classes, 1, max(1, both - 2), whole=True)
    return both - num_classes, num_classes


def configure_v1(
    shapes: Mapping[str, Shape], num_heads: int | None, num_classes: int | None
) -> TransformerConfig:
    """Read the configuration of a v1.0 transformer."""
    rows, width = shape_of(shapes, "tok_emb.weight", 2)
    inner = shape_of(shapes, "transformer.layers.0.0.fn.mha.in_proj_weight", 2)[0] // 3
    heads = heads_for(width, num_heads, V1_HEADS, inner)
    codes, classes = split_rows(rows, 2, num_classes)
    return configured(
        TransformerConfig,
        kind="class_token",
        codebook_size=codes,
        num_classes=classes,
        grid_size=side_of(shape_of(shapes, "pos_emb", 3)[1] - 1, "pos_emb"),
        width=width,
        depth=count(shapes, r"transformer\.layers\.(\d+)\."),
        num_heads=heads,
        mlp_width=shape_of(shapes, "transformer.layers.0.1.fn.net.0.weight", 2)[0],
    )


def v1_rule(name: str, config: TransformerConfig) -> Rule:
    """Return the source of one of our tensors in a v1.0 file."""
    if name == "position":
        return Rule(("pos_emb",), "batched")
    if match := re.fullmatch(r"(stem|head)\.(\d)\.(\w+)", name):
        # The source has a dropout before the linear layers.
        layer = {"stem": "first_layer", "head": "last_layer"}[match[1]]
        index = {"0": 0, "1": 2, "3": 4, "4": 6}[match[2]]
        return Rule((f"{layer}.{index}.{match[3]}",))
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name):
        inside = {
            "norm1": "0.norm.",
            "attention.qkv": "0.fn.mha.in_proj_",
            "attention.out": "0.fn.mha.out_proj.",
            "norm2": "1.norm.",
            "mlp.up": "1.fn.net.0.",
            "mlp.down": "1.fn.net.3.",
        }[match[2]]
        return Rule((f"transformer.layers.{match[1]}.{inside}{match[3]}",))
    return Rule(({"embedding.weight": "tok_emb.weight", "bias": "bias"}[name],))


def configure_halton(
    shapes: Mapping[str, Shape], num_heads: int | None, num_classes: int | None
) -> TransformerConfig:
    """Read the configuration of a Halton-MaskGIT transformer."""
    rows, width = shape_of(shapes, "tok_emb.weight", 2)
    classes = shape_of(shapes, "cls_emb.weight", 2)[0] - 1
    if num_classes not in (None, classes):
        raise ValueError(f"num_classes must be {classes} for these weights; got {num_classes}")
    merge = 1
    if "in_proj.weight" in shapes:
        merge = shape_of(shapes, "in_proj.weight", 4)[2]
    inner = shape_of(shapes, "transformer.layers.0.attn.wq.weight", 2)[0]
    return configured(
        TransformerConfig,
        kind="adaln",
        codebook_size=rows - 1,
        num_classes=classes,
        grid_size=side_of(shape_of(shapes, "pos_emb.weight", 2)[0], "pos_emb.weight"),
        width=width,
        depth=count(shapes, r"transformer\.layers\.(\d+)\."),
        num_heads=heads_for(width, num_heads, HALTON_HEADS, inner),
        mlp_width=shape_of(shapes, "transformer.layers.0.ff.w1.weight", 2)[0],
        num_registers=shape_of(shapes, "reg_tokens.weight", 2)[0],
        merge=merge,
    )


def halton_rule(name: str, config: TransformerConfig) -> Rule:
    """Return the sources of one of our tensors in a Halton-MaskGIT file."""
    if name == "merge.split.weight":
        return Rule(("out_proj.weight",), "pointwise")
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        layer = f"transformer.layers.{match[1]}."
        sources = {
            "norm1": ["ln1.weight"],
            "norm2": ["ln2.weight"],
            "attention.qkv.weight": ["attn.wq.weight", "attn.wk.weight", "attn.wv.weight"],
            "attention.out.weight": ["attn.wo.weight"],
            "mlp.gate_up.weight": ["ff.w1.weight", "ff.w3.weight"],
            "mlp.down.weight": ["ff.w2.weight"],
            "modulation.weight": ["mlp.1.weight"],
            "modulation.bias": ["mlp.1.bias"],
        }[match[2]]
        return Rule(tuple(layer + source for source in sources), "stack")
    source = {
        "embedding.weight": "tok_emb.weight",
        "class_embedding.weight": "cls_emb.weight",
        "position": "pos_emb.weight",
        "registers": "reg_tokens.weight",
        "merge.join.weight": "in_proj.weight",
        "norm_weight": "last_norm.norm_final.weight",
        "norm_bias": "last_norm.norm_final.bias",
        "modulation.weight": "last_norm.mlp.1.weight",
        "modulation.bias": "last_norm.mlp.1.bias",
        "bias": "head.bias",
    }[name]
    return Rule((source,))


def configure_bert(
    shapes: Mapping[str, Shape], num_heads: int | None, num_classes: int | None
) -> BertConfig:
    """Read the configuration of the original MaskGIT's generator."""
    layer = "TransformerLayer_0/"
    rows, width = shape_of(shapes, "Embed_0/word_embeddings/embedding", 2)
    heads = shape_of(shapes, f"{layer}Attention_0/self_attention/query/kernel", 3)[1]
    if num_heads not in (None, heads):
        raise ValueError(f"num_heads must be {heads} for these weights; got {num_heads}")
    positions = shape_of(shapes, "Embed_0/position_embeddings/embedding", 2)[0]
    codes, classes = split_rows(rows, 1, num_classes)
    return configured(
        BertConfig,
        codebook_size=codes,
        num_classes=classes,
        grid_size=side_of(positions - 1, "Embed_0/position_embeddings/embedding"),
        width=width,
        depth=count(shapes, r"TransformerLayer_(\d+)/"),
        num_heads=heads,
        mlp_width=shape_of(shapes, f"{layer}Mlp_0/intermediate_output/kernel", 2)[1],
    )


def bert_rule(name: str, config: BertConfig) -> Rule:
    """Return the sources of one of our tensors in a file of the original MaskGIT."""
    *_, leaf = name.split(".")
    norm_leaf = "scale" if leaf == "weight" else "bias"
    dense = ("kernel", "dense") if leaf == "weight" else ("bias", "copy")
    if match := re.fullmatch(r"layers\.(\d+)\.(.+)\.(?:weight|bias)", name):
        layer = f"TransformerLayer_{match[1]}/"
        attention = f"{layer}Attention_0/self_attention/"
        if match[2] == "attention.qkv":
            change = "heads" if leaf == "weight" else "head_biases"
            parts = ("query", "key", "value")
            return Rule(tuple(f"{attention}{part}/{dense[0]}" for part in parts), change)
        if match[2] == "attention.out":
            change = "from_heads" if leaf == "weight" else "copy"
            return Rule((f"{attention}out/{dense[0]}",), change)
        if match[2] == "norm1":
            return Rule((f"{layer}Attention_0/attention_output_ln/{norm_leaf}",))
        if match[2] == "norm2":
            return Rule((f"{layer}Mlp_0/layer_output_ln/{norm_leaf}",))
        linear = {"mlp.up": "intermediate_output", "mlp.down": "layer_output"}[match[2]]
        return Rule((f"{layer}Mlp_0/{linear}/{dense[0]}",), dense[1])
    if name.startswith("head."):
        return Rule((f"MlmLayer_0/mlm_dense/{dense[0]}",), dense[1])
    source = {
        "embedding.weight": "Embed_0/word_embeddings/embedding",
        "position": "Embed_0/position_embeddings/embedding",
        "norm.weight": "Embed_0/embeddings_ln/scale",
        "norm.bias": "Embed_0/embeddings_ln/bias",
        "head_norm.weight": "MlmLayer_0/mlm_ln/scale",
        "head_norm.bias": "MlmLayer_0/mlm_ln/bias",
        "bias": "MlmLayer_0/mlm_bias/bias",
    }[name]
    return Rule((source,))


HALTON = Family(
    "Halton-MaskGIT transformer",
    "transformer",
    (r"cls_emb\.weight", r"transformer\.layers\.\d+\.attn\.w"),
    AdaLNMaskedTransformer,
    configure_halton,
    halton_rule,
    # The output layer is the token table under a second name.
    ignored=r"head\.weight",
    sampling=lambda config: halton_sampling(config.grid_size, config.width),
)
V1 = Family(
    "v1.0 MaskGIT transformer",
    "transformer",
    (r"first_layer\.\d", r"transformer\.layers\.\d+\.0\.fn\.mha\."),
    MaskedTransformer,
    configure_v1,
    v1_rule,
    sampling=lambda config: v1_sampling(config.grid_size),
)
BERT = Family(
    "original MaskGIT generator (flax)",
    "transformer",
    (r"TransformerLayer_\d", r"MlmLayer_0/"),
    BertTransformer,
    configure_bert,
    bert_rule,
    sampling=lambda config: google_sampling(config.grid_size),
)
