"""Published weights: names, shapes and configurations, and what does not fit."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit_core.config import TransformerConfig
from maskgit_core.files import CheckpointError
from maskgit_core.networks.bert import BertConfig
from maskgit_core.networks.maskbit import MaskBitConfig
from maskgit_core.networks.vqgan import VQGANConfig
from maskgit_core.weights.checkpoint import load_checkpoint
from maskgit_core.weights.convert import (
    convert_checkpoint,
    convert_pair,
    convert_tokenizer,
    convert_transformer,
    tokenizer_from,
    transformer_from,
)
from maskgit_core.weights.families.maskbit import MASKBIT
from maskgit_core.weights.families.table import TOKENIZER_FAMILIES, TRANSFORMER_FAMILIES
from maskgit_core.weights.families.transformers import BERT, HALTON
from maskgit_core.weights.formats import WeightFile, read_weights
from maskgit_core.weights.rules import source_shapes
from parity_files import (
    PARITY,
    TOKENIZERS,
    TRANSFORMERS,
    resave,
    weight_file,
)


def meta_file(family, config) -> WeightFile:
    """Return a file of a family, without values, for one of our configurations."""
    with torch.device("meta"):
        network = family.network(config)
    rules = {name: family.rule_for(name, config) for name in network.state_dict()}
    shapes = source_shapes(rules, network, getattr(config, "num_heads", 1))
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return WeightFile("file", tensors)


@settings(max_examples=20, deadline=None)
@given(
    family=st.sampled_from(TRANSFORMER_FAMILIES),
    codes=st.integers(2, 90),
    classes=st.integers(1, 30),
    grid=st.integers(1, 5).map(lambda side: 2 * side),
    heads=st.integers(1, 5),
    head_width=st.integers(1, 20),
    spare=st.integers(0, 4),
    depth=st.integers(1, 12),
    hidden=st.integers(1, 40),
    registers=st.integers(1, 3),
    merge=st.sampled_from([1, 2]),
)
def test_a_transformer_of_any_shape_is_recognised(
    family, codes, classes, grid, heads, head_width, spare, depth, hidden, registers, merge
):
    values = {
        "codebook_size": codes,
        "num_classes": classes,
        "grid_size": grid,
        "width": heads * head_width,
        "depth": depth,
        "num_heads": heads,
        "mlp_width": hidden,
    }
    if family is HALTON:
        values["width"] += min(spare, heads - 1)  # what the heads leave over
        values |= {"kind": "adaln", "num_registers": registers, "merge": merge}
    file = None
    if family is MASKBIT:
        del values["codebook_size"]
        config = MaskBitConfig(**values, bits=registers * merge, groups=merge)
        file = meta_file(family, config)
        file.tensors["bits_to_indices"] = torch.empty(registers, device="meta")
    else:
        config = BertConfig(**values) if family is BERT else TransformerConfig(**values)
    file = file or meta_file(family, config)
    network = transformer_from(file, num_heads=heads, num_classes=classes)
    assert network.config == config


@settings(max_examples=20, deadline=None)
@given(
    family=st.sampled_from(TOKENIZER_FAMILIES),
    stem=st.integers(1, 2),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    blocks=st.integers(1, 3),
    attention=st.sets(st.integers(0, 3)),
    latent=st.integers(1, 12),
    code=st.integers(1, 12),
    codes=st.integers(2, 50),
)
def test_a_tokenizer_of_any_shape_is_recognised(
    family, stem, widths, blocks, attention, latent, code, codes
):
    style = {"LlamaGen tokenizer": "attention", "taming-transformers VQGAN": "attention"}
    style |= {"MaskBit tokenizer": "bits"}
    plain = style.setdefault(family.title, "plain") != "attention"
    config = VQGANConfig(
        style=style[family.title],
        stem_width=32 * stem,
        widths=tuple(32 * width for width in widths),
        num_blocks=blocks,
        attention_levels=()
        if plain
        else tuple(sorted(level for level in attention if level < len(widths))),
        latent_dim=latent,
        codebook_size=2**latent if style[family.title] == "bits" else codes,
        codebook_dim=latent if plain else code,
        l2_normalize=family.title == "LlamaGen tokenizer",
    )
    assert tokenizer_from(meta_file(family, config)).config == config


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_wrapper_prefixes_are_removed_wherever_they_are(tmp_path, prefix):
    def add(tensors):
        for name in list(tensors):
            head, _, tail = name.partition(".")
            tensors[f"{prefix}{head}.module.{tail}" if tail else prefix + head] = tensors.pop(name)

    network = convert_transformer(resave(tmp_path / "x", "halton", add), num_heads=4)
    same = convert_transformer(PARITY / "halton" / "weights.pth", num_heads=4)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])


def test_heads_are_asked_for_where_the_width_is_unpublished():
    path = PARITY / "halton" / "weights.pth"
    with pytest.raises(ValueError, match="num_heads must be given.*width 64"):
        convert_transformer(path)
    with pytest.raises(ValueError, match="num_heads must split width 64 .* got 5"):
        convert_transformer(path, num_heads=5)
    with pytest.raises(ValueError, match="num_heads must be .* between 1 and 64; got 65"):
        convert_transformer(path, num_heads=65)
    generator = PARITY / "google-generator" / "weights.msgpack"
    with pytest.raises(ValueError, match="num_heads must be 4 .* got 8"):
        convert_transformer(generator, num_heads=8)


def test_classes_of_a_shared_table(tmp_path):
    generator = PARITY / "google-generator" / "weights.msgpack"
    with pytest.raises(CheckpointError, match="58 codes and classes together .* --num-classes"):
        convert_transformer(generator)
    assert convert_transformer(generator, num_classes=8).config.codebook_size == 50
    with pytest.raises(ValueError, match="num_classes must be .* between 1 and 56; got 57"):
        convert_transformer(generator, num_classes=57)
    with pytest.raises(ValueError, match="num_classes must be 10 .* got 11"):
        convert_transformer(PARITY / "halton" / "weights.pth", num_heads=4, num_classes=11)
    # The optimizer's state tells: the loss never moves the bias of a class.
    assert (
        convert_transformer(PARITY / "maskgit-v1" / "weights.pth", num_heads=4).config.codebook_size
        == 48
    )

    def zero(tensors):
        tensors["bias"][:, 41:] = 0

    trained = convert_transformer(resave(tmp_path / "x", "maskgit-v1", zero), num_heads=4)
    assert (trained.config.codebook_size, trained.config.num_classes) == (40, 18)


def test_leftovers_are_listed_in_the_names_of_the_file(tmp_path):
    def spoil(tensors):
        del tensors["transformer.layers.1.attn.wk.weight"]
        tensors["transformer.layers.0.ff.w2.weight"] = torch.zeros(3, 3)
        tensors["text_proj.weight"] = torch.zeros(1)

    with pytest.raises(CheckpointError) as caught:
        convert_transformer(resave(tmp_path / "x", "halton", spoil), num_heads=4)
    assert "1 missing: transformer.layers.1.attn.wk.weight" in str(caught.value)
    assert "1 unexpected: text_proj.weight" in str(caught.value)
    assert "1 misshapen: transformer.layers.0.ff.w2.weight is (3, 3)" in str(caught.value)


@pytest.mark.parametrize("family", [*TRANSFORMERS, *TOKENIZERS])
def test_every_single_tensor_is_needed(family, tmp_path):
    heads = TRANSFORMERS.get(family, (None, None))[1]
    content = read_weights(weight_file(family))
    classes = None if family.startswith("halton") else 10
    optional = ("loss.", "head.weight", "quantize.codebook_used")
    names = [name for name in content.tensors if not name.startswith(optional)]
    for name in names[:: 1 + len(names) // 50]:
        rest = {key: value for key, value in content.tensors.items() if key != name}
        weights = {key: torch.empty(value.shape, device="meta") for key, value in rest.items()}
        with pytest.raises(CheckpointError):
            if family in TRANSFORMERS:
                transformer_from(WeightFile(family, weights), num_heads=heads, num_classes=classes)
            else:
                tokenizer_from(WeightFile(family, weights))


def test_an_untied_output_layer_is_refused(tmp_path):
    def untie(tensors):
        tensors["head.weight"] = tensors["head.weight"] + 1

    with pytest.raises(CheckpointError, match="output layer that differs"):
        convert_transformer(resave(tmp_path / "x", "halton", untie), num_heads=4)


def test_a_part_given_for_the_other_is_named():
    with pytest.raises(CheckpointError, match="holds a tokenizer .LlamaGen.*transformer is wanted"):
        convert_transformer(PARITY / "llamagen-vq" / "weights.pt")
    with pytest.raises(CheckpointError, match="holds a transformer .v1.0.*tokenizer is wanted"):
        convert_tokenizer(PARITY / "maskgit-v1" / "weights.pth")
    with pytest.raises(CheckpointError, match="holds a transformer .original.*tokenizer"):
        convert_tokenizer(PARITY / "google-generator" / "weights.msgpack")


def test_configuration_of_a_tokenizer(tmp_path):
    path = PARITY / "taming-vqgan" / "weights.ckpt"
    assert convert_tokenizer(path).config.image_size == 256
    yaml = PARITY / "taming-vqgan" / "model.yaml"
    tokenizer = convert_tokenizer(path, config=yaml)
    assert (tokenizer.config.image_size, tokenizer.config.grid_size) == (32, 8)
    assert convert_tokenizer(path, config={"resolution": 64}).config.grid_size == 16
    with pytest.raises(CheckpointError, match="codebook_size 65, the weights have 64"):
        convert_tokenizer(path, config={"n_embed": 65})
    with pytest.raises(CheckpointError, match="image_size must be a multiple of 4; got 30"):
        convert_tokenizer(path, config={"resolution": 30})
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match="bad.yaml cannot be read"):
        convert_tokenizer(path, config=tmp_path / "bad.yaml")
    vqgan = PARITY / "maskgit-vqgan"
    tokenizer = convert_tokenizer(vqgan / "pytorch_model.bin", config=vqgan / "config.json")
    assert tokenizer.config.image_size == 32
    llamagen = PARITY / "llamagen-vq" / "weights.pt"
    assert not convert_tokenizer(llamagen, config={"l2_norm": False}).config.l2_normalize


@pytest.mark.parametrize("size", [(16, 48), (32, 32)])
def test_tokenizers_take_any_image_size(size):
    network = convert_tokenizer(PARITY / "taming-vqgan" / "weights.ckpt")
    with torch.no_grad():
        tokens = network.encode_to_tokens(torch.zeros(1, 3, *size))
        assert tokens.shape == (1, size[0] // 4, size[1] // 4)
        assert network.decode_tokens(tokens).shape == (1, 3, *size)


def test_a_converted_pair_comes_back_from_its_folder(tmp_path):
    parts = (PARITY / "llamagen-vq" / "weights.pt", PARITY / "halton" / "weights.pth")
    convert_checkpoint(*parts, tmp_path / "out", num_heads=4)
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.tokenizer.config.image_size == 32
    assert loaded.classes == [f"class {label}" for label in range(10)]
    assert loaded.sampling.order == "halton"
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefghij") + "\n")
    convert_checkpoint(*parts, tmp_path / "out", num_heads=4, classes_file=names)
    assert load_checkpoint(tmp_path / "out").classes == list("abcdefghij")
    names.write_text("only one\n")
    with pytest.raises(ValueError, match="classes must hold 10 names; got 1"):
        convert_checkpoint(*parts, tmp_path / "out", num_heads=4, classes_file=names)
    tokenizer, transformer = convert_pair(*parts, num_heads=4)
    for mine, theirs in ((loaded.tokenizer, tokenizer), (loaded.transformer, transformer)):
        assert mine.config == theirs.config
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name])
    with pytest.raises(CheckpointError, match="already in this project's own form"):
        convert_transformer(tmp_path / "out" / "transformer.safetensors")


def test_the_original_pair_comes_back_from_its_folder(tmp_path):
    """The post-norm generator has a kind of its own in config.json."""
    smaller = {"num_classes": 18, "num_heads": None}  # 40 codes, as many as the tokenizer
    parts = [PARITY / f"google-{part}" / "weights.msgpack" for part in ("tokenizer", "generator")]
    convert_checkpoint(*parts, tmp_path / "out", **smaller)
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.transformer.null_label is None
    assert loaded.sampling.guidance_scale == 1
    labels, tokens = torch.tensor([0, 17]), torch.full((2, 36), 40)
    assert loaded.transformer(tokens, labels).shape == (2, 36, 40)
    with pytest.raises(IndexError):
        loaded.transformer(tokens, torch.tensor([0, 18]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensor: tensor.int(), "must be float"),
        (lambda tensor: tensor.to(torch.complex64), "must be float"),
        (lambda tensor: tensor * torch.nan, "holds nan or infinity"),
    ],
)
def test_a_tensor_without_finite_numbers_is_named(tmp_path, change, says):
    name = "transformer.layers.0.ln1.weight"
    weights = torch.load(PARITY / "halton" / "weights.pth", weights_only=True)
    weights["model_state_dict"][name] = change(weights["model_state_dict"][name])
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=f"{re.escape(name)} {says}"):
        convert_transformer(tmp_path / "weights.pth", num_heads=4)


def test_parts_that_do_not_belong_together():
    halton = PARITY / "halton" / "weights.pth"
    google = PARITY / "google-tokenizer" / "weights.msgpack"
    with pytest.raises(CheckpointError, match="codebook of 40, the transformer of 64"):
        convert_pair(google, halton, num_heads=4)
    taming = PARITY / "taming-vqgan" / "weights.ckpt"
    with pytest.raises(CheckpointError, match="grid of 16 tokens .* transformer has 8"):
        convert_pair(taming, halton, num_heads=4, config={"resolution": 64})
