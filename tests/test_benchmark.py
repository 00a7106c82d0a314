import copy
import torch
import pytest
from maskgit_core.config import ORDERS, SamplingConfig, TransformerConfig
from maskgit_core.reference_loop import plain_steps, plain_transformer
from maskgit_core.sampling import decode_steps
from maskgit_core.transformer import build_transformer
SMALL = {
    "class_token": TransformerConfig(codebook_size=37, num_classes=3, grid_size=4, width=24, depth=2, num_heads=3, mlp_width=40),
    "adaln": TransformerConfig(codebook_size=37, num_classes=3, grid_size=4, width=26, depth=2, num_heads=3, mlp_width=40, kind="adaln", num_registers=2),
    "adaln merged": TransformerConfig(codebook_size=37, num_classes=3, grid_size=4, width=24, depth=2, num_heads=3, mlp_width=40, kind="adaln", merge=2),
}


def small_network(name):
    torch.manual_seed(0)
    network = build_transformer(SMALL[name]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_plain_loop_decodes_the_same_tokens(name, order, guidance_scale):
    network = small_network(name)
    config = SamplingConfig(num_steps=6, order=order, guidance_scale=guidance_scale, temperature=0.8)
    tokens = torch.full((3, 4, 4), 37)
    tokens[1, :2] = 5
    tokens[2] = 9
    arguments = dict(codebook_size=37, null_label=network.null_label, seeds=[3, 4, 5])
    labels = torch.tensor([0, 2, 1])
    with torch.inference_mode():
        ours = [s.tokens for s in decode_steps(network, tokens, labels, config, **arguments)]
        plain = list(plain_steps(plain_transformer(network), tokens, labels, config, **arguments))
    assert len(ours) == len(plain)
    for a, b in zip(ours, plain, strict=True):
        assert torch.equal(a, b)
