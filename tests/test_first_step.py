"""The remembered first step: the same tokens, computed once a class and set of weights."""

from __future__ import annotations

import pytest
import torch

import tiny
from maskgit_core import MaskGIT, SamplingConfig
from maskgit_core.config import ORDERS
from maskgit_core.devices.first_step import StartStore
from maskgit_core.devices.parts import InParts
from maskgit_core.weights.checkpoint import Checkpoint
from plain_decoding import plain_steps, plain_transformer

K = tiny.TRANSFORMER.codebook_size
KINDS = [
    {"kind": "class_token"},
    {"kind": "adaln", "num_registers": 2},
    {"kind": "adaln", "merge": 2},
]


def model_of(**changes) -> MaskGIT:
    checkpoint = Checkpoint(tiny.tokenizer(), tiny.transformer(**changes), list(tiny.CLASSES))
    return MaskGIT(checkpoint)


class Counting:
    """A `CellNetwork` that notes how many rows it is asked for."""

    def __init__(self, network):
        self.network, self.rows = network, []
        self.condition, self.logits_of = network.condition, network.logits_of

    def hidden_at(self, tokens, condition, cells):
        self.rows.append(len(tokens))
        return self.network.hidden_at(tokens, condition, cells)


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: "-".join(map(str, changes.values())))
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("scale", "schedule"), [(1.0, "constant"), (3.0, "constant"), (3.0, "linear")]
)
def test_the_pipeline_gives_the_plain_loops_tokens(changes, order, scale, schedule):
    model = model_of(**changes)
    config = SamplingConfig(
        num_steps=5, order=order, guidance_scale=scale, guidance_schedule=schedule
    )
    with torch.inference_mode():
        *_, plain = plain_steps(
            plain_transformer(model.transformer),
            torch.full((3, 4, 4), K),
            torch.tensor([0, 2, 0]),
            config,
            codebook_size=K,
            null_label=model.null_label,
            seeds=[7, 8, 9],
        )
    for _ in range(2):  # the second time from memory
        assert torch.equal(model.generate([0, 2, 0], config, seed=7).tokens, plain)


@torch.no_grad()
def test_a_class_is_computed_once():
    counting, store = Counting(tiny.transformer()), StartStore()
    tokens, cells = torch.full((3, 16), K), torch.ones(3, 16, dtype=torch.bool)
    for labels in ([0, 0, 1], [1, 0, 2]):
        network = store.start(counting, K)
        condition = network.condition(torch.tensor(labels))
        hidden = network.hidden_at(tokens, condition, cells)
        expected = counting.network.hidden_at(tokens, condition, cells)
        torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-6)
        network.hidden_at(tokens, condition, cells)
    assert counting.rows == [2, 3, 1, 3]


@torch.no_grad()
def test_a_token_that_is_known_is_never_overlooked():
    counting, store = Counting(tiny.transformer()), StartStore()
    tokens, cells = torch.full((1, 16), K), torch.ones(1, 16, dtype=torch.bool)
    condition = counting.condition(torch.tensor([0]))
    start = store.start(counting, K).hidden_at(tokens, condition, cells)
    tokens[0, 3] = 5
    other = store.start(counting, K).hidden_at(tokens, condition, cells)
    assert counting.rows == [1, 1] and not torch.allclose(start, other, atol=1e-4)


def test_new_weights_forget_it():
    model, config = model_of(), SamplingConfig(num_steps=1, temperature=0.0)
    model.generate([0], config)
    with torch.no_grad():
        model.transformer.bias[:, 7] += 100.0
    assert (model.generate([0], config).tokens == 7).all()


@torch.no_grad()
def test_memory_is_bounded():
    counting = Counting(tiny.transformer())
    row = 16 * 16 * 4
    store = StartStore(max_bytes=2 * row)
    tokens, cells = torch.full((1, 16), K), torch.ones(1, 16, dtype=torch.bool)
    for label in (0, 1, 2, 2, 0):
        network = store.start(counting, K)
        network.hidden_at(tokens, network.condition(torch.tensor([label])), cells)
    assert counting.rows == [1, 1, 1, 1]  # 2 from memory, 0 anew


@pytest.mark.parametrize("changes", KINDS, ids=lambda changes: "-".join(map(str, changes.values())))
@pytest.mark.parametrize("threads", [1, 3, 24])
@torch.no_grad()
def test_parts_of_a_batch_give_what_the_whole_gives(threads, changes, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    network = tiny.transformer(**changes)
    parts, generator = InParts(network), torch.Generator().manual_seed(0)
    for rows in (1, 4, 5, 19):
        tokens = torch.randint(K + 1, (rows, 16), generator=generator)
        condition = network.condition(torch.randint(3, (rows,), generator=generator))
        cells = torch.rand(tokens.shape, generator=generator) < 0.5
        cells[:, 2] = True
        hidden, wanted = (n.hidden_at(tokens, condition, cells) for n in (parts, network))
        torch.testing.assert_close(hidden, wanted, rtol=1e-4, atol=1e-5)


def test_a_decoding_may_leave_inference_mode():
    model, config = model_of(), SamplingConfig(num_steps=5)
    steps = model.generate_steps([0, 1], config, seed=3)
    with torch.inference_mode():
        next(steps)
        next(steps)
    *_, last = steps
    assert torch.equal(last.tokens, model.generate([0, 1], config, seed=3).tokens)
