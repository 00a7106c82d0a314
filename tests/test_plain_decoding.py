"""The decoding loop against a plain one that computes the same in another way."""

from __future__ import annotations

import pytest
import torch

from maskgit_core import TransformerTrainConfig
from maskgit_core.config import ORDERS, SamplingConfig, TransformerConfig
from maskgit_core.data.shards import TokenData
from maskgit_core.decoding.loop import decode_steps
from maskgit_core.networks.registry import build_transformer
from maskgit_core.training.transformer_stage import TransformerStage
from plain_decoding import plain_images, plain_steps, plain_transformer
from plain_training import PlainTransformerStage

K = 37
SHAPE = {"codebook_size": K, "num_classes": 3, "grid_size": 4, "num_heads": 3, "mlp_width": 40}
SMALL = {
    "class_token": TransformerConfig(width=24, depth=2, **SHAPE),
    "adaln": TransformerConfig(width=26, depth=2, kind="adaln", num_registers=2, **SHAPE),
    "merged": TransformerConfig(width=24, depth=2, kind="adaln", merge=2, **SHAPE),
}


def small_networks(name):
    """A network and its plain form, in float64: what they round differently decides no token."""
    torch.manual_seed(0)
    network = build_transformer(SMALL[name]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    plain = plain_transformer(network).double()
    return network.double(), plain


def partly_known_tokens():
    tokens = torch.full((3, 4, 4), K)
    tokens[1, :2] = 5
    tokens[2] = 9
    return tokens


@pytest.mark.parametrize("name", SMALL)
def test_the_plain_network_gives_the_same_logits(name):
    network, plain = small_networks(name)
    tokens = torch.randint(K + 1, (3, 16), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 2, network.null_label])
    with torch.inference_mode():
        torch.testing.assert_close(
            plain(tokens, labels), network(tokens, labels), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("guidance_scale", "temperature"), [(1.0, 1.0), (3.0, 0.8), (3.0, 0.0)])
def test_the_plain_loop_decodes_the_same_tokens(name, order, guidance_scale, temperature):
    network, plain = small_networks(name)
    config = SamplingConfig(
        num_steps=6, order=order, guidance_scale=guidance_scale, temperature=temperature
    )
    arguments = (partly_known_tokens(), torch.tensor([0, 2, 1]), config)
    settings = {"codebook_size": K, "null_label": network.null_label, "seeds": [3, 4, 5]}
    with torch.inference_mode():
        # As a plain function: test_cell_network has what the loop asks of a network in parts.
        steps = decode_steps(network.forward, *arguments, **settings)
        ours = [state.tokens for state in steps]
        others = list(plain_steps(plain, *arguments, **settings))
    for one, other in zip(ours, others, strict=True):
        assert torch.equal(one, other)


def test_the_plain_loop_passes_twice_a_step_and_draws_every_step():
    calls, drawn = [], []

    def network(tokens, labels):
        calls.append(labels.tolist())
        return torch.zeros(*tokens.shape, K)

    def decode(tokens):
        drawn.append(tokens)
        return tokens

    steps = plain_steps(
        network,
        partly_known_tokens()[:1],
        torch.tensor([1]),
        SamplingConfig(num_steps=4),
        codebook_size=K,
        null_label=3,
        seeds=[0],
    )
    assert len(list(plain_images(steps, decode, K))) == 4
    assert calls == [[1], [3]] * 4
    assert len(drawn) == 4 and all(int(tokens.max()) < K for tokens in drawn)


def test_the_plain_training_step_takes_the_same_loss():
    network, plain = small_networks("class_token")
    config = TransformerTrainConfig(batch_size=4, label_smoothing=0.1, label_drop_prob=0.5)
    tokens = torch.randint(K, (8, 1, 16), generator=torch.Generator().manual_seed(0))
    data = TokenData(tokens, torch.arange(8) % 3, ["a", "b", "c"])
    ours = TransformerStage(network, torch.nn.Identity(), data, None, config)
    plain = PlainTransformerStage(plain, torch.nn.Identity(), data, None, config)
    torch.testing.assert_close(ours.loss(3)[0].double(), plain.loss(3)[0], rtol=1e-5, atol=0)


def test_networks_without_a_plain_form_and_settings_it_lacks_are_refused():
    with pytest.raises(ValueError, match="^model must have a plain form"):
        plain_transformer(torch.nn.Linear(2, 2))
    steps = plain_steps(
        lambda tokens, labels: torch.zeros(*tokens.shape, K),
        partly_known_tokens(),
        torch.zeros(3, dtype=torch.int64),
        SamplingConfig(top_k=3),
        codebook_size=K,
        null_label=3,
        seeds=[0, 1, 2],
    )
    with pytest.raises(ValueError, match="^top_k and top_p"):
        next(steps)
