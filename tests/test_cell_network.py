"""The parts that networks offer to the decoding loop give what the networks themselves give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit_core.config import ORDERS, SamplingConfig, TokenizerConfig, TransformerConfig
from maskgit_core.decoding.loop import CellNetwork, decode_steps
from maskgit_core.devices.prepack import PackedLinear, pack, packing_works
from maskgit_core.networks.bert import BertConfig, BertTransformer
from maskgit_core.networks.registry import build_transformer
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.pipeline import MaskGIT
from maskgit_core.weights.checkpoint import Checkpoint

K = 37
SHAPE = {"codebook_size": K, "num_classes": 3, "grid_size": 4, "num_heads": 3, "mlp_width": 40}
CONFIGS = {
    "class_token": TransformerConfig(width=24, depth=2, **SHAPE),
    "one block": TransformerConfig(width=24, depth=1, **SHAPE),
    "adaln": TransformerConfig(width=26, depth=2, kind="adaln", num_registers=2, **SHAPE),
    "merged": TransformerConfig(width=24, depth=2, kind="adaln", merge=2, **SHAPE),
}


def build(name):
    torch.manual_seed(0)
    network = build_transformer(CONFIGS[name]).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(std=0.3)
    return network


NETWORKS = {name: build(name) for name in CONFIGS}


@pytest.mark.parametrize("name", CONFIGS)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.2, 0.7, 1.0]))
@settings(max_examples=25, deadline=None)
def test_logits_of_any_cells_are_those_of_the_whole_grid(name, seed, share):
    network, generator = NETWORKS[name], torch.Generator().manual_seed(seed)
    tokens = torch.randint(K + 1, (3, 16), generator=generator)
    labels = torch.randint(4, (3,), generator=generator)
    cells = torch.rand(3, 16, generator=generator) < share
    cells[:, 5] = True
    hidden = network.hidden_at(tokens, network.condition(labels), cells)
    logits = network.logits_of(hidden, cells.nonzero()[:, 1])
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, network(tokens, labels)[cells], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0])
def test_decoding_by_cells_gives_the_same_steps(name, order, guidance_scale):
    network = NETWORKS[name]
    config = SamplingConfig(num_steps=5, order=order, guidance_scale=guidance_scale)
    tokens = torch.full((3, 4, 4), K)
    tokens[1, :2, 1:] = 5
    tokens[2, 0, :2] = torch.tensor([1, 2])

    def states(logits_fn):
        settings = {"codebook_size": K, "null_label": network.null_label, "seeds": [3, 4, 5]}
        return list(decode_steps(logits_fn, tokens, torch.tensor([0, 2, 1]), config, **settings))

    whole = states(lambda tokens, labels: network(tokens, labels))
    for one, other in zip(states(network), whole, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.newly_revealed, other.newly_revealed)
        torch.testing.assert_close(
            one.confidence, other.confidence, rtol=1e-3, atol=1e-3, equal_nan=True
        )


def test_only_wanted_cells_reach_the_output_layer_and_a_class_is_prepared_once():
    network, seen, prepared = NETWORKS["adaln"], [], []

    class Watched:
        def condition(self, labels):
            prepared.append(labels.tolist())
            return network.condition(labels)

        def hidden_at(self, tokens, condition, cells):
            return network.hidden_at(tokens, condition, cells)

        def logits_of(self, hidden, cell):
            seen.append(len(hidden))
            return network.logits_of(hidden, cell)

    watched = Watched()
    assert isinstance(watched, CellNetwork) and isinstance(network, CellNetwork)
    config = SamplingConfig(num_steps=4, schedule="linear", guidance_schedule="constant")
    tokens, labels = torch.full((2, 4, 4), K), torch.tensor([1, 2])
    settings = {"codebook_size": K, "null_label": 3, "seeds": [0, 1]}
    list(decode_steps(watched, tokens, labels, config, **settings))
    assert seen == [32, 24, 16, 8]
    assert prepared == [[1, 2], [3]]
    seen.clear()
    halton = SamplingConfig(num_steps=4, schedule="linear", order="halton")
    list(decode_steps(watched, tokens, labels, halton, **settings))
    assert seen == [8, 8, 8, 8]


def bert():
    torch.manual_seed(0)
    config = BertConfig(codebook_size=K, num_classes=3, grid_size=4, width=24, depth=2, num_heads=3)
    network = BertTransformer(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.normal_(std=0.3)
    return network


@pytest.mark.parametrize("name", [*CONFIGS, "bert"])
def test_packed_weights_give_the_same_logits_and_leave_the_network_alone(name):
    network = bert() if name == "bert" else NETWORKS[name]
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    tokens = torch.randint(K + 1, (3, 16), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 2, 1])
    with torch.inference_mode():
        wanted = network(tokens, labels)
        packed = pack(network)
        torch.testing.assert_close(packed(tokens, labels), wanted, rtol=1e-4, atol=1e-4)
        if isinstance(network, CellNetwork):
            cells = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) < 0.5
            hidden = packed.hidden_at(tokens, packed.condition(labels), cells)
            logits = packed.logits_of(hidden, cells.nonzero()[:, 1])
            torch.testing.assert_close(logits, wanted[cells], rtol=1e-4, atol=1e-4)
        assert torch.equal(network(tokens, labels), wanted)
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    if packing_works():
        assert any(isinstance(module, PackedLinear) for module in packed.modules())
        assert packed.embedding.weight is network.embedding.weight


def test_networks_that_cannot_be_packed_are_used_as_they_are(monkeypatch):
    half = build("adaln").half()
    assert pack(half) is half
    monkeypatch.setattr("maskgit_core.devices.prepack.packing_works", lambda: False)
    assert pack(NETWORKS["adaln"]) is NETWORKS["adaln"]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_pipeline_decodes_the_tokens_of_the_plain_network(name):
    tokenizer = VQTokenizer(TokenizerConfig(image_size=32, codebook_size=K, widths=(8, 8, 8)))
    network = build(name)
    model = MaskGIT(Checkpoint(tokenizer, network, ["a", "b", "c"]))
    config = SamplingConfig(num_steps=5)

    def plain():
        settings = {"codebook_size": K, "null_label": 3, "seeds": [4, 5, 6]}
        tokens, labels = torch.full((3, 4, 4), K), torch.tensor([0, 1, 2])
        whole_grid = lambda tokens, labels: network(tokens, labels)  # noqa: E731
        return [s.tokens for s in decode_steps(whole_grid, tokens, labels, config, **settings)][-1]

    assert torch.equal(model.generate([0, 1, 2], config, seed=4).tokens, plain())
    assert model.fast_transformer() is model.fast_transformer()
    before = plain()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    assert not torch.equal(before, plain())
    assert torch.equal(model.generate([0, 1, 2], config, seed=4).tokens, plain())
