"""The masked transformers: logits of real codes, every cell sees every other and the class."""

from __future__ import annotations

import pytest
import torch

import tiny
from maskgit_core.networks.registry import build_transformer
from maskgit_core.networks.transformer import TokenMerge

VARIANTS = [
    {"kind": "class_token"},
    {"kind": "adaln", "num_registers": 0},
    {"kind": "adaln", "num_registers": 2},
    {"kind": "adaln", "merge": 2},
]
K = tiny.TRANSFORMER.codebook_size


@pytest.fixture(params=VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def network(request):
    return tiny.transformer(**request.param)


def half_masked(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, K, (2, 16), generator=generator)
    return tokens.masked_fill(torch.arange(16) % 2 == 0, K)


@torch.no_grad()
def test_logits_are_float32_over_the_real_codes(network):
    labels = torch.tensor([0, network.null_label])
    logits = network(half_masked(), labels)
    assert logits.shape == (2, 16, K) and logits.dtype == torch.float32
    assert torch.equal(network(half_masked().view(2, 4, 4), labels), logits)
    assert network.mask_token_id == K
    assert network.null_label == len(tiny.CLASSES)


@torch.no_grad()
def test_logits_stay_float32_under_autocast(network):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(half_masked(), torch.tensor([0, 1]))
    assert logits.dtype == torch.float32


@torch.no_grad()
def test_every_label_and_none_count(network):
    tokens = half_masked()[:1].expand(4, -1)
    logits = network(tokens, torch.arange(4))
    for label in range(4):
        for other in range(label):
            assert not torch.allclose(logits[label], logits[other], atol=1e-4)


@torch.no_grad()
def test_a_visible_token_reaches_every_cell(network):
    tokens, labels = half_masked(), torch.tensor([0, 1])
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % K
    difference = (network(changed, labels) - network(tokens, labels)).abs().amax(-1)
    assert (difference[0] > 1e-5).all()
    assert not difference[1].any()


@torch.no_grad()
def test_a_masked_cell_differs_from_a_visible_one(network):
    tokens, labels = half_masked(), torch.tensor([0, 1])
    hidden = tokens.clone()
    hidden[0, 5] = K
    assert not torch.allclose(network(hidden, labels)[0, 0], network(tokens, labels)[0, 0])


@torch.no_grad()
def test_cells_have_places(network):
    tokens = torch.full((1, 16), K)
    logits = network(tokens, torch.tensor([0]))[0]
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
    assert not torch.allclose(logits[0], logits[4], atol=1e-4)


@torch.no_grad()
def test_output_weights_are_the_embedding(network):
    tokens, labels = half_masked(), torch.tensor([0, 1])
    before = network(tokens, labels)
    unused = next(code for code in range(K) if not bool((tokens == code).any()))
    network.embedding.weight[unused] += 1.0
    changed = (network(tokens, labels) - before).abs().amax((0, 1)) > 1e-6
    assert changed[unused] and changed.sum() == 1


@torch.no_grad()
def test_each_place_and_code_has_a_bias():
    network = tiny.transformer()
    tokens, labels = half_masked(), torch.tensor([0, 1])
    before = network(tokens, labels)
    network.bias[5, 7] += 2.0
    network.bias[-1] += 3.0  # of the class token, whose logits are not asked for
    network.bias[:, K:] += 3.0  # of the mask and the classes, which are no codes
    wanted = before.clone()
    wanted[:, 5, 7] += 2.0
    torch.testing.assert_close(network(tokens, labels), wanted)


def test_one_embedding_holds_codes_mask_classes_and_null():
    network = tiny.transformer()
    assert network.embedding.weight.shape == (K + 1 + len(tiny.CLASSES) + 1, 16)


def test_a_fresh_network_knows_nothing_yet_and_learns():
    torch.manual_seed(0)
    network = build_transformer(tiny.TRANSFORMER)
    tokens, labels = half_masked(), torch.tensor([0, 1])
    logits = network(tokens, labels)
    assert logits.softmax(-1).max() < 2 / K
    logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_dropout_acts_in_training_only():
    network = tiny.transformer(dropout=0.5)
    tokens, labels = half_masked(), torch.tensor([0, 1])
    with torch.no_grad():
        assert torch.equal(network(tokens, labels), network(tokens, labels))
        network.train()
        assert not torch.equal(network(tokens, labels), network(tokens, labels))


@torch.no_grad()
def test_merged_tokens_come_back_to_their_places():
    merge = TokenMerge(4, 2, 4)
    grid = torch.zeros(1, 16, 4)
    grid[0, 4 * 1 + 2] = 1.0  # row 1, column 2: the second square of the first row
    merged = merge(grid)
    assert merged.shape == (1, 4, 4)
    assert merged[0].abs().sum(-1).nonzero().flatten().tolist() == [1]
    back = merge.inverse(merged)
    assert back.shape == (1, 16, 4)
    assert back[0].abs().sum(-1).nonzero().flatten().tolist() == [2, 3, 6, 7]


@pytest.mark.parametrize("changes", [{}, {"kind": "adaln"}, {"kind": "adaln", "merge": 2}])
def test_logits_at_some_cells_are_those_of_all(changes):
    network = tiny.transformer(**changes)
    tokens, labels = torch.randint(0, 33, (3, 16)), torch.tensor([0, 3, 1])
    cells = torch.rand(3, 16) < 0.6
    cells[1] = True
    wanted = network(tokens, labels)[cells]
    torch.testing.assert_close(network(tokens, labels, cells=cells), wanted)
