from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit_core.config import GUIDANCE_SCHEDULES, ORDERS, SCHEDULES, SamplingConfig
from maskgit_core.draws import draw_codes
from maskgit_core.orders import halton_order
from maskgit_core.sampling import StepState, decode_steps
from maskgit_core.schedules import reveal_counts

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
    order=st.sampled_from(ORDERS),
    schedule=st.sampled_from(SCHEDULES),
    temperature=st.sampled_from([0.0, 0.01, 0.7, 1.0, 5.0]),
    guidance_scale=st.sampled_from([0.0, 1.0, 2.5]),
    guidance_schedule=st.sampled_from(GUIDANCE_SCHEDULES),
    choice_temperature=st.sampled_from([0.0, 4.5]),
    top_k=st.sampled_from([None, 1, 3, 100]),
    top_p=st.sampled_from([None, 1e-6, 0.5, 1.0]),
)


def assert_same(one: StepState, other: StepState) -> None:
    assert torch.equal(one.tokens, other.tokens)
    assert torch.equal(one.newly_revealed, other.newly_revealed)
    torch.testing.assert_close(one.confidence, other.confidence, equal_nan=True, atol=0, rtol=0)


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


def record_calls(calls):
    def logits_fn(tokens, labels):
        calls.append((tokens.shape, labels.tolist()))
        return fake_logits(tokens, labels)

    return logits_fn


def test_the_unconditional_pass_is_left_out_where_the_scale_is_one():
    labels = torch.tensor([2, 1])
    for config, null_label, rows in (
        (SamplingConfig(num_steps=3, guidance_scale=1.0), NULL, [2, 2, 2]),
        (SamplingConfig(num_steps=3), None, [2, 2, 2]),
        (SamplingConfig(num_steps=3), NULL, [2, 4, 4]),
        (SamplingConfig(num_steps=3, guidance_schedule="constant"), NULL, [4, 4, 4]),
        (SamplingConfig(num_steps=3, guidance_scale=0.0), NULL, [2, 4, 4]),
    ):
        calls = []
        decode(
            masked(2), config, logits_fn=record_calls(calls), labels=labels, null_label=null_label
        )
        assert [shape for shape, _ in calls] == [(n, SIDE**2) for n in rows]
        for _, seen in calls:
            assert seen in ([2, 1], [2, 1, NULL, NULL])


def test_images_that_are_done_are_not_computed_again():
    tokens = masked(3)
    tokens[0] = 1
    tokens[1, 1:] = 2
    calls = []
    config = SamplingConfig(num_steps=8, guidance_scale=1.0)
    decode(tokens, config, logits_fn=record_calls(calls))
    assert [shape[0] for shape, _ in calls] == [2] * 4 + [1] * 4


def test_no_unknown_cell_gives_one_state_and_no_call():
    tokens = torch.zeros(2, 3, 3, dtype=torch.int64)
    calls = []
    (state,) = decode(tokens, SamplingConfig(), logits_fn=record_calls(calls))
    assert calls == [] and state.num_steps == 1
    assert torch.equal(state.tokens, tokens) and not state.newly_revealed.any()


def test_guidance_at_zero_is_the_unconditional_network():
    config = SamplingConfig(guidance_scale=0.0, guidance_schedule="constant")
    null = torch.tensor([NULL])
    unconditional = decode(masked(), replace(config, guidance_scale=1.0), labels=null)
    for one, other in zip(decode(masked(), config), unconditional, strict=True):
        assert_same(one, other)


def test_guidance_extrapolates_from_unconditional_to_conditional():
    config = SamplingConfig(
        num_steps=1, guidance_scale=2.5, guidance_schedule="constant", temperature=0.0
    )
    conditional, unconditional = (
        fake_logits(masked().flatten(1), torch.tensor([label]))[..., :K] for label in (0, NULL)
    )
    guided = unconditional + 2.5 * (conditional - unconditional)
    (state,) = decode(masked(), config)
    assert torch.equal(state.tokens.flatten(1), guided.argmax(-1))
    best = guided.log_softmax(-1).amax(-1)
    torch.testing.assert_close(state.confidence.flatten(1), best)


def test_columns_beyond_the_codebook_are_never_drawn():
    def with_mask_column(tokens, labels):
        return torch.cat([fake_logits(tokens, labels)[..., :K], torch.full((1, 16, 2), 99.0)], 2)

    plain = decode(masked(), SamplingConfig(guidance_scale=1.0))
    extra = decode(masked(), SamplingConfig(guidance_scale=1.0), logits_fn=with_mask_column)
    assert_same(plain[-1], extra[-1])


def test_probabilities_are_float32_under_autocast_and_for_half_precision_networks():
    def half(tokens, labels):
        return fake_logits(tokens, labels).bfloat16()

    def rounded(tokens, labels):
        return half(tokens, labels).float()

    config = SamplingConfig(temperature=0.7, top_p=0.9)
    plain = decode(masked(), config, logits_fn=rounded)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = decode(masked(), config, logits_fn=half)
    for one, other in zip(plain, under_autocast, strict=True):
        assert_same(one, other)
        assert other.confidence.dtype == torch.float32


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


def test_alternatives_are_the_likeliest_codes_when_the_cell_was_revealed():
    states = decode(masked(2), SamplingConfig(guidance_scale=1.0))
    tokens, labels = masked(2), torch.tensor([0, 1])
    for state in states:
        probs = fake_logits(tokens.flatten(1), labels)[..., :K].softmax(-1)
        best, ids = probs.topk(5, dim=-1)
        new = state.newly_revealed.flatten(1)
        assert torch.equal(state.alternative_ids.flatten(1, 2)[new], ids[new])
        torch.testing.assert_close(state.alternative_probs.flatten(1, 2)[new], best[new])
        still = state.tokens == K
        assert (state.alternative_ids[still] == K).all()
        assert (state.alternative_probs[still] == 0).all()
        tokens = state.tokens


uniforms = torch.arange(2000, dtype=torch.float32) / 2000


def frequencies(logits, **settings_):
    config = SamplingConfig(**settings_)
    codes = draw_codes(logits.expand(len(uniforms), -1), uniforms, config).codes
    return torch.bincount(codes, minlength=len(logits)) / len(uniforms)


def test_draws_have_the_probabilities_of_the_tempered_logits():
    logits = torch.tensor([1.0, -1.0, 0.5, 3.0])
    for temperature in (0.5, 1.0, 3.0):
        expected = (logits / temperature).softmax(0)
        found = frequencies(logits, temperature=temperature)
        torch.testing.assert_close(found, expected, atol=1.1e-3, rtol=0)


def test_top_k_and_top_p_draw_from_the_likeliest_codes_in_proportion():
    probs = torch.tensor([0.1, 0.4, 0.3, 0.2])
    for kept, options in (
        ([1], {"top_k": 1}),
        ([1, 2], {"top_k": 2}),
        ([1], {"top_p": 1e-6}),
        ([1], {"top_p": 0.39}),
        ([1, 2], {"top_p": 0.5}),
        ([1, 2, 3], {"top_p": 0.75}),
        ([0, 1, 2, 3], {"top_p": 1.0, "top_k": 50}),
        # The share is counted among the two codes that top_k leaves: 4/7 is enough for 0.55.
        ([1], {"top_k": 2, "top_p": 0.55}),
    ):
        expected = torch.zeros(4)
        expected[kept] = probs[kept] / probs[kept].sum()
        found = frequencies(probs.log(), **options)
        torch.testing.assert_close(found, expected, atol=1.1e-3, rtol=0)


@given(st.integers(0, 2**24 - 1), st.sampled_from([1e-30, 0.01, 1.0, 100.0]))
def test_an_impossible_code_is_never_drawn(number, temperature):
    logits = torch.full((1, 9), -torch.inf)
    logits[0, [2, 6]] = torch.tensor([0.3, 0.1])
    uniform = torch.tensor([number / 2**24], dtype=torch.float32)
    draw = draw_codes(logits, uniform, SamplingConfig(temperature=temperature))
    assert int(draw.codes) in (2, 6)


def test_large_grids_are_drawn_in_pieces_with_the_same_result(monkeypatch):
    logits = torch.randn(40, K, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(40, generator=torch.Generator().manual_seed(1))
    whole = draw_codes(logits, uniform, SamplingConfig())
    monkeypatch.setattr("maskgit_core.draws._PIECE_NUMBERS", 7 * K)
    pieces = draw_codes(logits, uniform, SamplingConfig())
    assert torch.equal(whole.codes, pieces.codes)
    assert torch.equal(whole.log_probs, pieces.log_probs)


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
