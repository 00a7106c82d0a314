"""Published weights: the same numbers as the originals, on reduced-size files."""

from __future__ import annotations

import json

import pytest
import torch

from maskgit_core.config import SamplingConfig
from maskgit_core.decoding.loop import decode_steps
from maskgit_core.weights.convert import (
    convert_tokenizer,
    convert_transformer,
    published_sampling,
    tokenizer_from,
    transformer_from,
)
from maskgit_core.weights.formats import WeightFile
from maskgit_core.weights.known import KNOWN_WEIGHTS
from parity_files import (
    PARITY,
    TOKENIZERS,
    TOLERANCE,
    TRANSFORMERS,
    UNIT_RANGE,
    tensors,
)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_logits_are_the_originals(family):
    file, heads = TRANSFORMERS[family]
    facts = json.loads((PARITY / family / "fixture.json").read_text())["machine_readable"]
    # The original keeps codes and classes in one table: a reduced file does not say how many.
    classes = {"num_classes": facts["nclass"]} if family == "google-generator" else {}
    network = convert_transformer(PARITY / family / file, num_heads=heads, **classes)
    given = tensors(family, "inputs")
    labels = given["labels"].long()
    if "drop_label" in given:
        labels = torch.where(given["drop_label"], network.null_label, labels)
    tokens = given["tokens"].long()
    with torch.no_grad():
        logits = network(tokens, labels)
        flat = network(tokens.flatten(1), labels)
    wanted = tensors(family, "expected")["logits"][..., : facts["codebook_size"]]
    assert logits.dtype == torch.float32
    assert not network.training
    torch.testing.assert_close(logits, wanted, **TOLERANCE)
    assert torch.equal(logits, flat)


@pytest.mark.parametrize("family", TOKENIZERS)
def test_tokens_and_images_are_the_originals(family):
    network = convert_tokenizer(PARITY / family / TOKENIZERS[family])
    given, wanted = tensors(family, "inputs"), tensors(family, "expected")
    image = given["images" if family == "google-tokenizer" else "image"]
    image = image * 2 - 1 if family in UNIT_RANGE else image

    def inside(images):
        return (images + 1) / 2 if family in UNIT_RANGE else images

    with torch.no_grad():
        tokens = network.encode_to_tokens(image)
        decoded = inside(network.decode_tokens(wanted["ids"].long()))
        torch.testing.assert_close(decoded, wanted["reconstruction"], **TOLERANCE)
        if "given_ids" in given:
            decoded = inside(network.decode_tokens(given["given_ids"].long()))
            torch.testing.assert_close(decoded, wanted["decoded_given_ids"], **TOLERANCE)
        if "prequant" in wanted:
            torch.testing.assert_close(network.encode(image), wanted["prequant"], **TOLERANCE)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, wanted["ids"].long())
    assert not network.training


@pytest.mark.parametrize(("weight", "scale"), [("w0", 1.0), ("w2", 3.0)])
def test_best_code_decoding_on_halton_weights_is_the_originals(weight, scale):
    network = convert_transformer(PARITY / "halton" / "weights.pth", num_heads=4)
    wanted = tensors("samplers", "expected")[f"grid_after_step_{weight}"].long()
    labels = tensors("samplers", "inputs")["labels"].long()
    config = SamplingConfig(
        num_steps=len(wanted),
        order="halton",
        schedule="arccos",
        temperature=0.0,
        guidance_scale=scale,
        guidance_schedule="constant",
    )
    with torch.no_grad():
        steps = decode_steps(
            network,
            torch.full((len(labels), 8, 8), network.mask_token_id),
            labels,
            config,
            codebook_size=network.config.codebook_size,
            null_label=network.null_label,
            seeds=range(len(labels)),
        )
        grids = torch.stack([step.tokens for step in steps])
    assert torch.equal(grids, wanted)


def published() -> list[tuple[str, str, dict[str, list[int]], dict]]:
    """Return (family, file, name -> shape, hyper-parameters) of every published file."""
    found = []
    for path in sorted(PARITY.glob("*/published.json")):
        content = json.loads(path.read_text())
        for file, entry in content.get("checkpoints", content).items():
            found.append(
                (
                    path.parent.name,
                    file,
                    entry.get("tensors", entry),
                    entry.get("hyper_parameters", {}),
                )
            )
    return found


# What other tests left to the garbage collector may come to light in any test.
@pytest.mark.filterwarnings(
    "error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("family", "file", "shapes", "facts"), published(), ids=lambda v: v if type(v) is str else ""
)
def test_every_published_name_is_used(family, file, shapes, facts):
    shapes = {name.removeprefix("params/"): shape for name, shape in shapes.items()}
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    transformer = family in TRANSFORMERS or family == "maskbit-generator"
    build = transformer_from if transformer else tokenizer_from
    network = build(WeightFile(file, weights))
    config = network.config
    for theirs, ours in (
        ("grid", "grid_size"),
        ("depth", "depth"),
        ("heads", "num_heads"),
        ("nclass", "num_classes"),
        ("bits", "bits" if transformer else "codebook_dim"),
        ("splits", "groups"),
        ("codebook_size", "codebook_size"),
        ("n_embed", "codebook_size"),
        ("num_embeddings", "codebook_size"),
        ("codebook_embed_dim", "codebook_dim"),
        ("l2_norm", "l2_normalize"),
        ("num_res_blocks", "num_blocks"),
    ):
        if theirs in facts:
            assert getattr(config, ours) == facts[theirs], theirs
    # What `convert` writes for it is what the table of known weights says of it.
    for known in KNOWN_WEIGHTS.values():
        if known.transformer.name == file.rpartition("/")[2]:
            assert published_sampling(network).usual == known.sampling
    # Shared and ignored tensors apart, no number is lost on the way.
    lost = {"head.weight", "quantize.codebook_used", "quantize.codebook"}
    lost |= {"bits_to_indices", "quantize.bits_to_indices"}
    count = sum(weight.numel() for name, weight in weights.items() if name not in lost)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
