"""The optimizer: orthogonal updates of matrices, AdamW for the rest."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tiny
from maskgit_core.training.optim import (
    MuonAdamW,
    build_optimizer,
    orthogonalize,
    orthogonalize_stack,
)


def well_conditioned(rows: int, columns: int, seed: int) -> torch.Tensor:
    """A random matrix whose singular values lie within a factor of 10."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u * torch.linspace(0.1, 1, len(s))) @ v


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 1000), st.floats(1e-4, 1e4))
def test_singular_values_come_near_one(rows, columns, seed, size):
    matrix = well_conditioned(rows, columns, seed) * size
    result = orthogonalize(matrix)
    assert result.shape == matrix.shape and result.dtype == torch.float32
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() and values.max() < 1.3
    # The singular vectors stay: the result still points the way of the nearest orthogonal matrix.
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    aligned = (u.T @ result @ v.T).diagonal()
    torch.testing.assert_close(aligned.sort().values, values.sort().values, atol=2e-3, rtol=0)


def test_orthogonalising_nothing_gives_nothing():
    assert torch.equal(orthogonalize(torch.zeros(4, 6)), torch.zeros(4, 6))


@pytest.mark.parametrize("shape", [(6, 24), (24, 6), (16, 16)])
def test_a_stack_is_orthogonalised_as_one_by_one(shape):
    matrices = [well_conditioned(*shape, seed) * 10**seed for seed in range(-3, 3)]
    results = orthogonalize_stack(torch.stack(matrices))
    assert results.dtype == torch.float32
    for matrix, result in zip(matrices, results, strict=True):
        torch.testing.assert_close(result, orthogonalize(matrix), atol=0.05, rtol=0)


@pytest.mark.parametrize("shape", [(24, 32), (32, 24), (24, 4, 3, 3), (24, 3, 2, 2)])
def test_matrices_of_one_shape_are_updated_together_as_one_by_one(shape):
    """What a GPU does, on the CPU: the same steps but for bfloat16."""

    def optimizer() -> MuonAdamW:
        first = torch.Generator().manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape, generator=first)) for _ in range(3)]
        return MuonAdamW([{"params": parameters, "lr": 0.1, "orthogonal": True}])

    alone, together = optimizer(), optimizer()
    for step in range(3):
        noise = torch.Generator().manual_seed(step)
        for one, other in zip(
            *(o.param_groups[0]["params"] for o in (alone, together)), strict=True
        ):
            one.grad = torch.randn(shape, generator=noise)
            other.grad = one.grad.clone()
        alone.step()
        group = together.param_groups[0]
        with torch.no_grad():
            together._muon_together(group["params"], group)
    for one, other in zip(*(o.param_groups[0]["params"] for o in (alone, together)), strict=True):
        torch.testing.assert_close(other, one, atol=0.03, rtol=0)


def test_vectors_are_updated_as_by_adam():
    """Kingma and Ba 2015, Algorithm 1, written out."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    wanted, mean, square = parameter.detach().double(), torch.zeros(3), torch.zeros(3)
    group = {"params": [parameter], "lr": 0.01, "orthogonal": False}
    optimizer = MuonAdamW([group], betas=(0.9, 0.95))
    for step in range(1, 7):
        grad = torch.randn(3, generator=torch.Generator().manual_seed(step))
        parameter.grad = grad.clone()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * grad.double()
        square = 0.95 * square + 0.05 * grad.double() ** 2
        unbiased = mean / (1 - 0.9**step), square / (1 - 0.95**step)
        wanted = wanted - 0.01 * unbiased[0] / unbiased[1].sqrt()
        torch.testing.assert_close(parameter.detach().double(), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (8, 3, 2, 2), (3, 8, 2, 2)])
def test_a_matrix_moves_by_an_orthogonal_step(shape):
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(shape))
    before = parameter.detach().clone()
    parameter.grad = torch.randn(shape)
    MuonAdamW([{"params": [parameter], "lr": 0.1, "orthogonal": True}]).step()
    rows, columns = parameter.flatten(1).shape
    step = (before - parameter.detach()).flatten(1) / (0.1 * math.sqrt(max(1, rows / columns)))
    torch.testing.assert_close(step, orthogonalize(parameter.grad.flatten(1)), atol=1e-5, rtol=0)


def test_weight_decay_shrinks_matrices_and_leaves_vectors():
    network = nn.Linear(4, 4)
    nn.init.ones_(network.bias)
    before = network.weight.detach().clone()
    group = {"params": network.parameters(), "lr": 0.1, "orthogonal": False}
    optimizer = MuonAdamW([group], weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(network.weight.detach(), before * (1 - 0.1 * 0.5))
    assert torch.equal(network.bias, torch.ones(4))


def test_a_parameter_without_a_gradient_rests():
    frozen = nn.Parameter(torch.ones(3, 3))
    MuonAdamW([{"params": [frozen], "lr": 1.0, "orthogonal": True}], weight_decay=0.5).step()
    assert torch.equal(frozen, torch.ones(3, 3))


def groups_of(network: nn.Module, rate: float) -> dict[bool, list[nn.Parameter]]:
    optimizer = build_optimizer(
        network, learning_rate=1e-3, matrix_learning_rate=rate, weight_decay=0.0
    )
    return {group["orthogonal"]: group["params"] for group in optimizer.param_groups}


@pytest.mark.parametrize("rate", [0.0, 0.02])
@pytest.mark.parametrize(
    "network",
    [
        tiny.tokenizer(widths=(24, 32), codebook_dim=24),
        tiny.transformer(width=32),
        tiny.transformer(kind="adaln", width=32, merge=2),
    ],
)
def test_every_parameter_is_in_one_group(network, rate):
    groups = groups_of(network, rate)
    held = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(held) == sorted(id(parameter) for parameter in network.parameters())
    assert (True in groups) == (rate > 0)


def test_tables_and_vectors_are_no_matrices():
    tokenizer = tiny.tokenizer(widths=(24, 32), codebook_dim=24)
    transformer = tiny.transformer(width=32)
    matrices = groups_of(tokenizer, 0.02)[True] + groups_of(transformer, 0.02)[True]
    chosen = {id(parameter) for parameter in matrices}
    for table in (
        tokenizer.quantizer.codebook,
        transformer.embedding.weight,
        transformer.position,
        transformer.bias,
    ):
        assert id(table) not in chosen
    for matrix in (
        tokenizer.encoder.head.weight,
        transformer.stem[1].weight,
        transformer.blocks[0].attention.qkv.weight,
    ):
        assert id(matrix) in chosen
    assert all(parameter.ndim > 1 for parameter in matrices)


@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_it_learns(rate):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(24, 32), nn.GELU(), nn.Linear(32, 20))
    batch, wanted = torch.randn(64, 24), torch.randn(64, 20)
    optimizer = build_optimizer(
        network, learning_rate=1e-2, matrix_learning_rate=rate, weight_decay=0.0
    )
    losses = []
    for _ in range(40):
        loss = (network(batch) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_state_comes_back():
    def trained(steps: int, saved: dict | None = None) -> tuple[nn.Module, MuonAdamW]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
        optimizer = build_optimizer(
            network, learning_rate=1e-2, matrix_learning_rate=0.02, weight_decay=0.1
        )
        start = 0
        if saved is not None:
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            start = saved["step"]
        for step in range(start, steps):
            batch = torch.randn(4, 20, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            network(batch).square().mean().backward()
            optimizer.step()
        return network, optimizer

    half, optimizer = trained(3)
    saved = {"network": half.state_dict(), "optimizer": optimizer.state_dict(), "step": 3}
    resumed, whole = trained(6, saved)[0], trained(6)[0]
    for left, right in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(left, right)
