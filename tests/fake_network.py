"""A network that is a table, grids to decode with it, and any settings to do so."""

import torch
from hypothesis import strategies as st

from maskgit_core.config import SamplingConfig
from maskgit_core.decoding.loop import StepState, decode_steps
from maskgit_core.orders import ORDERS
from maskgit_core.schedules import GUIDANCE_SCHEDULES, NOISE_SCHEDULES, SCHEDULES

K = 11
NULL = 3
SIDE = 4
_random = torch.Generator().manual_seed(0)
TOKEN_TABLE = torch.randn(K + 1, K + 1, generator=_random)
CLASS_TABLE = torch.randn(NULL + 1, K + 1, generator=_random)
CELL_TABLE = torch.randn(256, K + 1, generator=_random)


def fake_logits(tokens, labels):
    """Logits that depend on the class, the cell, and all tokens of the same image."""
    rows = [
        TOKEN_TABLE[row].mean(0) * 3
        + TOKEN_TABLE[row]
        + CELL_TABLE[: len(row)]
        + CLASS_TABLE[label]
        for row, label in zip(tokens, labels.tolist(), strict=True)
    ]
    return torch.stack(rows)


def decode(tokens, config, *, logits_fn=fake_logits, labels=None, seeds=None, null_label=NULL):
    labels = torch.arange(len(tokens)) % NULL if labels is None else labels
    seeds = range(len(tokens)) if seeds is None else seeds
    steps = decode_steps(
        logits_fn, tokens, labels, config, codebook_size=K, null_label=null_label, seeds=seeds
    )
    return list(steps)


def masked(batch=1, side=SIDE):
    return torch.full((batch, side, side), K)


@st.composite
def edits(draw, max_batch=3):
    """Token grids with any cells known, of any shape."""
    shape = draw(st.tuples(*[st.integers(1, n) for n in (max_batch, 5, 5)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tokens = torch.randint(K, shape, generator=generator)
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    tokens[torch.rand(shape, generator=generator) < share] = K
    return tokens


configs = st.builds(
    SamplingConfig,
    num_steps=st.integers(1, 30),
    order=st.sampled_from(list(ORDERS)),
    schedule=st.sampled_from(list(SCHEDULES)),
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 5.0]),
    guidance_scale=st.sampled_from([0.0, 1.0, 2.5]),
    guidance_schedule=st.sampled_from(list(GUIDANCE_SCHEDULES)),
    choice_temperature=st.sampled_from([0.0, 4.5]),
    top_k=st.sampled_from([None, 1, 3, 100]),
    top_p=st.sampled_from([None, 1e-6, 0.5, 1.0]),
    guidance_power=st.sampled_from([0.5, 3.0]),
    noise_schedule=st.sampled_from(list(NOISE_SCHEDULES)),
    first_step_temperature=st.sampled_from([1.0, 0.0, 2.0]),
    last_step_temperature=st.sampled_from([1.0, 0.0, 0.5]),
)


def assert_same(one: StepState, other: StepState) -> None:
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.newly_revealed, other.newly_revealed)
    torch.testing.assert_close(one.confidence, other.confidence, equal_nan=True, atol=0, rtol=0)
