"""Decoding: schedules, orders, seeds, and the independence of images from each other."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_network import NULL, K, assert_same, configs, decode, edits, fake_logits, masked
from maskgit_core.config import SamplingConfig
from maskgit_core.decoding.loop import decode_steps
from maskgit_core.orders import ORDERS, Order, halton_order
from maskgit_core.schedules import reveal_counts


@settings(deadline=None)
@given(edits(), configs)
def test_unknown_cells_fill_by_the_schedule_and_known_ones_never_change(tokens, config):
    given_tokens = tokens.clone()
    unknown = tokens == K
    counts = [reveal_counts(config.schedule, int(n), config.num_steps) for n in unknown.sum((1, 2))]
    states = decode(tokens, config)
    assert torch.equal(tokens, given_tokens)
    assert [state.index for state in states] == list(range(len(states)))
    assert len(states) == max(1, *map(len, counts)) == states[0].num_steps
    left = unknown
    for step, state in enumerate(states):
        revealed = state.newly_revealed
        assert not (revealed & ~left).any()
        left = left & ~revealed
        assert torch.equal(state.tokens == K, left)
        assert torch.equal(state.tokens[~unknown], given_tokens[~unknown])
        wanted = [row[step] if step < len(row) else 0 for row in counts]
        assert revealed.sum((1, 2)).tolist() == wanted
        assert torch.equal(state.confidence.isnan(), left)
        assert (state.confidence[~unknown] == 0).all()
        assert (state.confidence[~left] <= 0).all()
    assert not left.any()
    assert states[-1].tokens.min() >= 0 and states[-1].tokens.max() < K


@settings(deadline=None)
@given(edits(), configs, st.integers(0, 2**63))
def test_an_image_alone_is_the_image_in_the_batch(tokens, config, seed):
    labels = torch.arange(len(tokens)) % NULL
    together = decode(tokens, config, labels=labels, seeds=range(seed, seed + len(tokens)))
    for row in range(len(tokens)):
        alone = decode(
            tokens[row : row + 1], config, labels=labels[row : row + 1], seeds=[seed + row]
        )
        for one, both in zip(alone, together, strict=False):
            assert torch.equal(one.tokens[0], both.tokens[row])
            assert torch.equal(one.newly_revealed[0], both.newly_revealed[row])
        assert torch.equal(alone[-1].tokens[0], together[-1].tokens[row])


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_seed_gives_the_same_steps_and_another_seed_another_image(order):
    config = SamplingConfig(order=order)
    first, again = (decode(masked(), config, seeds=[5]) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert_same(one, other)
    for seed in (6, 5 + 2**32, 5 + 2**40):
        assert not torch.equal(decode(masked(), config, seeds=[seed])[-1].tokens, first[-1].tokens)


@pytest.mark.parametrize(
    "change",
    [
        {"num_steps": 5},
        {"order": "halton"},
        {"order": "random"},
        {"order": "raster"},
        {"schedule": "arccos"},
        {"schedule": "linear"},
        {"schedule": "square"},
        {"schedule": "root"},
        {"temperature": 0.3},
        {"guidance_scale": 6.0},
        {"guidance_schedule": "constant"},
        {"guidance_schedule": "cosine"},
        {"guidance_schedule": "revealed"},
        {"guidance_schedule": "elapsed"},
        {"guidance_schedule": "power_cosine"},
        {"schedule": "arccos_increments"},
        {"schedule": "arccos_floor"},
        {"noise_schedule": "endpoints"},
        {"first_step_temperature": 3.0},
        {"last_step_temperature": 0.3},
        {"choice_temperature": 0.5},
        {"top_k": 2},
        {"top_p": 0.3},
    ],
    ids=str,
)
def test_every_setting_changes_the_result(change):
    config = SamplingConfig()
    tokens = masked(4, side=8)
    default = decode(tokens, config)[-1].tokens
    assert not torch.equal(decode(tokens, replace(config, **change))[-1].tokens, default)


def test_the_guidance_power_changes_the_result():
    config = SamplingConfig(guidance_schedule="power_cosine", guidance_scale=6.0)
    tokens = masked(4, side=8)
    low, high = (decode(tokens, replace(config, guidance_power=p))[-1].tokens for p in (0.5, 3.0))
    assert not torch.equal(low, high)


def test_one_more_order_is_one_entry(monkeypatch):
    def backwards(grid_size, generator):
        return torch.arange(grid_size[0] * grid_size[1]).flip(0)

    monkeypatch.setitem(ORDERS, "backwards", Order("from the end", backwards))
    states = decode(masked(), SamplingConfig(num_steps=16, order="backwards"))
    visited = [int(state.newly_revealed.flatten().nonzero()) for state in states]
    assert visited == list(range(15, -1, -1))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="^order must be one of confidence, halton"):
        SamplingConfig(order="backwards")


def test_images_of_other_numbers_of_steps_have_their_own_temperatures():
    tokens = masked(3)
    tokens[1, 1:] = 5
    config = SamplingConfig(num_steps=8, temperature=2.0, last_step_temperature=0.1)
    together = decode(tokens, config)
    for row in range(3):
        alone = decode(tokens[row : row + 1], config, labels=torch.tensor([row]), seeds=[row])
        assert torch.equal(alone[-1].tokens[0], together[-1].tokens[row])


def test_the_first_step_alone_takes_the_best_codes_at_temperature_zero():
    config = SamplingConfig(4, "raster", "linear", guidance_scale=1.0, first_step_temperature=0.0)
    first, *_ = decode(masked(), config, labels=torch.tensor([1]))
    best = fake_logits(masked().flatten(1), torch.tensor([1]))[..., :K].argmax(-1)
    new = first.newly_revealed.flatten(1)
    assert new.sum() == 16 // 4 and torch.equal(first.tokens.flatten(1)[new], best[new])
    others = [decode(masked(), config, seeds=[seed])[-1].tokens for seed in range(2)]
    assert not torch.equal(*others)


@pytest.mark.parametrize("order", ORDERS)
def test_twice_the_temperature_in_the_first_step_halves_its_logits(order):
    """As Halton-MaskGIT's evaluation does, whatever the guidance."""
    calls = []

    def halved(tokens, labels):
        calls.append(len(tokens))
        return fake_logits(tokens, labels) * (0.5 if len(calls) == 1 else 1.0)

    config = SamplingConfig(num_steps=6, order=order, guidance_schedule="constant")
    wanted = decode(masked(2, side=6), config, logits_fn=halved)
    found = decode(masked(2, side=6), replace(config, first_step_temperature=2.0))
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        torch.testing.assert_close(one.confidence, other.confidence, equal_nan=True)
    assert not torch.equal(found[-1].tokens, decode(masked(2, side=6), config)[-1].tokens)


def test_the_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = decode(masked(), SamplingConfig())[-1].tokens
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(decode(masked(), SamplingConfig())[-1].tokens, first)


def test_confidence_order_without_randomness_is_the_greedy_decoding():
    config = SamplingConfig(temperature=0.0, choice_temperature=0.0, guidance_scale=1.0)
    labels = torch.tensor([1])
    tokens = masked()
    for state in decode(tokens, config, labels=labels):
        log_probs = fake_logits(tokens.flatten(1), labels)[..., :K].log_softmax(-1)
        best, codes = log_probs.max(-1)
        best[tokens.flatten(1) != K] = -torch.inf
        count = reveal_counts("cosine", 16, 12)[state.index]
        cells = best.topk(count).indices
        tokens = tokens.flatten(1).scatter(1, cells, codes.gather(1, cells)).view(tokens.shape)
        assert torch.equal(state.tokens, tokens)
        revealed = state.confidence[state.newly_revealed]
        torch.testing.assert_close(revealed, best.flatten()[state.newly_revealed.flatten()])


def test_choice_noise_is_gone_in_the_last_step():
    # One step only: progress is 1 at once, so the noise cannot matter.
    quiet, loud = (
        decode(masked(), SamplingConfig(num_steps=1, choice_temperature=noise))[-1]
        for noise in (0.0, 1000.0)
    )
    assert_same(quiet, loud)


def test_halton_and_raster_orders_visit_the_unknown_cells_in_turn():
    tokens = masked(2, side=6)
    tokens[1, 2:4] = 5
    for order, cells in (("halton", halton_order(6)), ("raster", torch.arange(36))):
        states = decode(tokens, SamplingConfig(num_steps=36, order=order))
        for row in range(2):
            visited = [
                int(state.newly_revealed[row].flatten().nonzero())
                for state in states
                if state.newly_revealed[row].any()
            ]
            unknown = tokens[row].flatten()[cells] == K
            assert visited == cells[unknown].tolist()


def test_random_orders_differ_between_images():
    states = decode(masked(2), SamplingConfig(num_steps=16, order="random"), seeds=[0, 1])
    first, second = (
        [int(state.newly_revealed[row].flatten().nonzero()) for state in states] for row in (0, 1)
    )
    assert first != second


def test_writing_into_a_state_does_not_change_the_decoding():
    untouched = decode(masked(), SamplingConfig())
    labels = torch.zeros(1, dtype=torch.int64)
    steps = decode_steps(
        fake_logits,
        masked(),
        labels,
        SamplingConfig(),
        codebook_size=K,
        null_label=NULL,
        seeds=[0],
    )
    for wanted, state in zip(untouched, steps, strict=True):
        assert_same(wanted, state)
        state.tokens.zero_()
        state.confidence.zero_()
        state.alternative_ids.zero_()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokens": torch.zeros(1, 4, 4)}, "tokens"),
        ({"tokens": torch.zeros(1, 16, dtype=torch.int64)}, "tokens"),
        ({"tokens": torch.full((1, 4, 4), K + 1)}, "tokens"),
        ({"tokens": torch.full((1, 4, 4), -1)}, "tokens"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, "labels"),
        ({"labels": torch.zeros(1)}, "labels"),
        ({"seeds": [1, 2]}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": [0.5]}, "seeds"),
        ({"null_label": -1}, "null_label"),
        ({"codebook_size": 1}, "codebook_size"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_when_the_function_is_called(changes, named):
    arguments = {
        "tokens": masked(),
        "labels": torch.zeros(1, dtype=torch.int64),
        "config": SamplingConfig(),
        "codebook_size": K,
        "null_label": NULL,
        "seeds": [0],
    }
    with pytest.raises(ValueError, match=f"^{named} must"):
        decode_steps(fake_logits, **{**arguments, **changes})


@pytest.mark.parametrize(
    "logits", [torch.zeros(1, 16, K - 1), torch.zeros(1, 17, K), torch.full((1, 16, K), torch.nan)]
)
def test_unusable_logits_are_refused(logits):
    with pytest.raises(ValueError, match="^logits_fn must return"):
        decode(masked(), SamplingConfig(), logits_fn=lambda tokens, labels: logits)
