"""Published weights: the same numbers as the originals, on reduced-size files of every family."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from maskgit_core.converters import convert_tokenizer, convert_transformer

PARITY = Path(__file__).parent / "fixtures" / "parity"
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
TRANSFORMERS = {
    "maskgit-v1": ("weights.pth", 4),
    "halton": ("weights.pth", 4),
    "halton-proj2": ("weights.pth", 3),
    "google-generator": ("weights.msgpack", None),
}
TOKENIZERS = {
    "taming-vqgan": "weights.ckpt",
    "llamagen-vq": "weights.pt",
    "maskgit-vqgan": "pytorch_model.bin",
    "google-tokenizer": "weights.msgpack",
}
UNIT_RANGE = ("maskgit-vqgan", "google-tokenizer")


def tensors(family: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(PARITY / family / f"{name}.safetensors")


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_logits_are_the_originals(family):
    file, heads = TRANSFORMERS[family]
    facts = json.loads((PARITY / family / "fixture.json").read_text())["machine_readable"]
    network = convert_transformer(PARITY / family / file, num_heads=heads)
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
    image = given["image"] * 2 - 1 if family in UNIT_RANGE else given["image"]

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
