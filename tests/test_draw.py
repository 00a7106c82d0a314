"""What the network is asked, how guidance joins its answers, and how codes are drawn."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from fake_network import NULL, SIDE, K, assert_same, decode, fake_logits, masked
from maskgit_core.config import SamplingConfig
from maskgit_core.decoding import draw
from maskgit_core.decoding.draw import draw_codes


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


def test_a_temperature_that_float32_rounds_to_zero_takes_the_best_code():
    logits = torch.randn(40, K, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(40, generator=torch.Generator().manual_seed(1))
    for temperature in (5e-324, 1e-200, 1e-46, 1e-45, 1e-40, 1e-38, 1e-30):
        for more in ({}, {"top_k": 3}, {"top_p": 0.5}):
            drawn = draw_codes(logits, uniform, temperature=temperature, **more)
            assert torch.equal(drawn.codes, logits.argmax(-1))
            assert torch.isfinite(drawn.log_probs).all()
            probabilities = drawn.alternatives()[1]
            assert torch.isfinite(probabilities).all()
    tokens = [
        decode(masked(2), SamplingConfig(num_steps=3, order=order, temperature=1e-50))[-1].tokens
        for order in ("confidence", "halton")
    ]
    assert all(int(grid.max()) < K for grid in tokens)


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
    codes = draw_codes(logits.expand(len(uniforms), -1), uniforms, **settings_).codes
    return torch.bincount(codes, minlength=len(logits)) / len(uniforms)


def test_draws_have_the_probabilities_of_the_tempered_logits():
    logits = torch.tensor([1.0, -1.0, 0.5, 3.0])
    for temperature in (0.5, 1.0, 3.0):
        expected = (logits / temperature).softmax(0)
        found = frequencies(logits, temperature=temperature)
        torch.testing.assert_close(found, expected, atol=1.1e-3, rtol=0)


def test_a_filter_that_keeps_all_codes_changes_nothing():
    chance = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(200, K, generator=chance), torch.rand(200, generator=chance)
    plain = draw_codes(logits, uniform).codes
    for kept in ({"top_k": K}, {"top_k": 10**9}, {"top_p": 1.0}, {"top_k": K, "top_p": 1.0}):
        assert torch.equal(draw_codes(logits, uniform, **kept).codes, plain)


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
    draw = draw_codes(logits, uniform, temperature=temperature)
    assert int(draw.codes) in (2, 6)


def test_large_grids_are_drawn_in_pieces_with_the_same_result(monkeypatch):
    logits = torch.randn(40, K, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(40, generator=torch.Generator().manual_seed(1))
    whole = draw_codes(logits, uniform)
    sizes, draw_piece = [], draw._draw_piece

    def noted(log_probs, *arguments):
        sizes.append(len(log_probs))
        return draw_piece(log_probs, *arguments)

    monkeypatch.setattr(draw, "_draw_piece", noted)
    monkeypatch.setattr(draw, "_CPU_PIECE_NUMBERS", 7 * K)
    pieces = draw_codes(logits, uniform)
    assert sizes == [7, 7, 7, 7, 7, 5]
    assert torch.equal(whole.codes, pieces.codes)
    assert torch.equal(whole.log_probs, pieces.log_probs)
