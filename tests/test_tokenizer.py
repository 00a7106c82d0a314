"""The VQ tokenizer: shapes, nearest codes, and gradients that pass the quantiser."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from maskgit_core.networks.tokenizer import VectorQuantizer, VQTokenizer


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_shapes_follow_the_configuration(levels):
    config = replace(
        tiny.TOKENIZER,
        widths=(8, 16, 24)[:levels],
        encoder_blocks=(1, 0, 2)[:levels],
        decoder_blocks=(2, 1, 1)[:levels],
    )
    network = VQTokenizer(config).eval()
    images = tiny.images(2)
    side = 16 // 2**levels
    assert config.grid_size == side
    tokens = network.encode_to_tokens(images)
    assert tokens.shape == (2, side, side) and tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) and int(tokens.max()) < 32
    decoded = network.decode_tokens(tokens)
    assert decoded.shape == images.shape and decoded.dtype == torch.float32
    output, quantized = network(images)
    assert torch.equal(quantized.tokens, tokens)
    assert quantized.latents.shape == (2, 4, side, side)
    torch.testing.assert_close(output, decoded)


def test_other_sides_than_the_trained_ones_work():
    network = tiny.tokenizer()
    tokens = network.encode_to_tokens(torch.zeros(1, 3, 24, 32))
    assert tokens.shape == (1, 6, 8)
    assert network.decode_tokens(tokens).shape == (1, 3, 24, 32)


def test_a_token_depends_on_its_image_only():
    network, images = tiny.tokenizer(), tiny.images(3)
    together = network.encode_to_tokens(images)
    changed = images.clone()
    changed[0] = -changed[0]
    assert torch.equal(network.encode_to_tokens(changed)[1:], together[1:])
    assert not torch.equal(network.encode_to_tokens(changed)[0], together[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_nearest_is_the_smallest_distance(seed, normalize):
    generator = torch.Generator().manual_seed(seed)
    quantizer = VectorQuantizer(16, 3, l2_normalize=normalize)
    quantizer.codebook.data = torch.randn(16, 3, generator=generator)
    latents = torch.randn(1, 3, 4, 4, generator=generator)
    points = quantizer.normalized(latents.movedim(1, -1)).flatten(0, 2).double()
    codes = quantizer.normalized(quantizer.codebook).double()
    distance = (points[:, None] - codes[None]).square().sum(-1)
    chosen = quantizer.nearest(latents).flatten()
    got = distance.gather(1, chosen[:, None])[:, 0]
    # Of two codes as near as rounding can tell, either will do.
    torch.testing.assert_close(got, distance.min(1).values, atol=1e-4, rtol=0)


def test_a_normalised_lookup_ignores_lengths():
    quantizer = VectorQuantizer(32, 4, l2_normalize=True)
    latents = torch.randn(2, 4, 3, 3)
    tokens = quantizer.nearest(latents)
    with torch.no_grad():
        quantizer.codebook.mul_(torch.rand(32, 1) * 5 + 0.1)
    assert torch.equal(quantizer.nearest(latents * 7), tokens)
    codes = quantizer.lookup(tokens)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(2, 3, 3))


def test_a_plain_lookup_returns_the_rows_themselves():
    quantizer = VectorQuantizer(32, 4, l2_normalize=False)
    tokens = torch.arange(32).view(2, 4, 4)
    assert torch.equal(quantizer.lookup(tokens).movedim(1, -1).flatten(0, 2), quantizer.codebook)
    assert torch.equal(quantizer.nearest(quantizer.lookup(tokens)), tokens)


@pytest.mark.parametrize("normalize", [True, False])
def test_distances_are_float32_under_autocast(normalize):
    # Codes so close on a circle that bfloat16 cannot tell them apart.
    angle = torch.arange(32) / 100
    codes = torch.stack([angle.cos(), angle.sin()], dim=1)
    quantizer = VectorQuantizer(32, 2, l2_normalize=normalize)
    quantizer.codebook.data = codes
    latents = codes.T.reshape(1, 2, 4, 8).contiguous()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = quantizer.nearest(latents)
        looked_up = quantizer(latents).latents
    assert torch.equal(tokens.flatten(), torch.arange(32))
    assert looked_up.dtype == torch.float32
    rough = (codes.bfloat16() @ codes.bfloat16().T).argmax(1)
    assert not torch.equal(rough, torch.arange(32))


def test_gradients_pass_straight_through_to_the_encoder():
    network = tiny.tokenizer().train()
    images = tiny.images(2)
    output, _ = network(images)
    output.square().mean().backward()
    assert network.encoder.stem.weight.grad.abs().sum() > 0
    assert network.quantizer.codebook.grad is None  # the codes learn from their own loss only


def test_the_straight_through_gradient_is_that_of_the_latents():
    quantizer = VectorQuantizer(8, 4, l2_normalize=False)
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    weights = torch.randn(1, 4, 2, 2)
    quantized = quantizer(latents)
    torch.testing.assert_close(quantized.latents, quantizer.lookup(quantized.tokens))
    (quantized.latents * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_each_code_loss_moves_its_own_side():
    network = tiny.tokenizer().train()
    quantized = network.quantizer(network.encoder(tiny.images(2)))
    quantized.codebook_loss.backward(retain_graph=True)
    grad = network.quantizer.codebook.grad
    used = quantized.tokens.unique()
    assert grad[used].abs().sum(1).min() > 0
    unused = torch.ones(32, dtype=torch.bool)
    unused[used] = False
    assert not grad[unused].any()
    assert network.encoder.stem.weight.grad is None
    quantized.commit_loss.backward()
    assert network.encoder.stem.weight.grad.abs().sum() > 0
    assert torch.equal(network.quantizer.codebook.grad, grad)


def test_the_code_losses_are_the_mean_squared_distance():
    quantizer = VectorQuantizer(2, 2, l2_normalize=False)
    quantizer.codebook.data = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    latents = torch.tensor([[3.0, 4.0], [10.0, 1.0]]).T.reshape(1, 2, 1, 2)
    quantized = quantizer(latents)
    assert quantized.tokens.tolist() == [[[0, 1]]]
    assert quantized.codebook_loss.item() == pytest.approx((25 + 1) / 2)
    assert quantized.commit_loss.item() == pytest.approx((25 + 1) / 2)
