import json
import math

import pytest
import torch

from maskgit_core.benchmark.models import RANDOM_MODELS, load_model
from maskgit_core.benchmark.parts import hole_of
from maskgit_core.benchmark.plain_decoding import plain_images, plain_steps, plain_transformer
from maskgit_core.benchmark.processes import PROBES, peak_megabytes
from maskgit_core.benchmark.run import benchmark
from maskgit_core.benchmark.setup import Bench, compare
from maskgit_core.benchmark.timing import Row, Spread, gflop_of_pass, in_turn, spread
from maskgit_core.benchmark.training import PlainTransformerStage
from maskgit_core.cli.benchmark import PARTS, chosen_parts, format_table
from maskgit_core.cli.main import main
from maskgit_core.config import (
    ORDERS,
    SamplingConfig,
    TokenizerConfig,
    TrainConfig,
    TransformerConfig,
)
from maskgit_core.data.shards import TokenData
from maskgit_core.decoding.loop import decode_steps
from maskgit_core.devices.precision import bfloat16_pays, int8_works
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.networks.transformer import build_transformer
from maskgit_core.training.transformer_stage import TransformerStage
from maskgit_core.weights.checkpoint import save_checkpoint

K = 37
SHAPE = {"codebook_size": K, "num_classes": 3, "grid_size": 4, "num_heads": 3, "mlp_width": 40}
SMALL = {
    "class_token": TransformerConfig(width=24, depth=2, **SHAPE),
    "adaln": TransformerConfig(width=26, depth=2, kind="adaln", num_registers=2, **SHAPE),
    "merged": TransformerConfig(width=24, depth=2, kind="adaln", merge=2, **SHAPE),
}


def small_network(name):
    torch.manual_seed(0)
    network = build_transformer(SMALL[name]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network


def partly_known_tokens():
    tokens = torch.full((3, 4, 4), K)
    tokens[1, :2] = 5
    tokens[2] = 9
    return tokens


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = VQTokenizer(
        TokenizerConfig(
            image_size=32,
            widths=(8, 8, 8),
            encoder_blocks=(0, 0, 0),
            decoder_blocks=(0, 0, 0),
            codebook_size=K,
            codebook_dim=4,
        )
    )
    save_checkpoint(
        folder,
        tokenizer=tokenizer,
        transformer=small_network("class_token"),
        classes=["one", "two", "three"],
    )
    return str(folder)


@pytest.mark.parametrize("name", SMALL)
def test_the_plain_network_gives_the_same_logits(name):
    network = small_network(name)
    tokens = torch.randint(K + 1, (3, 16), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 2, network.null_label])
    with torch.inference_mode():
        torch.testing.assert_close(
            plain_transformer(network)(tokens, labels),
            network(tokens, labels),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("guidance_scale", "temperature"), [(1.0, 1.0), (3.0, 0.8), (3.0, 0.0)])
def test_the_plain_loop_decodes_the_same_tokens(name, order, guidance_scale, temperature):
    network = small_network(name)
    config = SamplingConfig(
        num_steps=6, order=order, guidance_scale=guidance_scale, temperature=temperature
    )
    arguments = (partly_known_tokens(), torch.tensor([0, 2, 1]), config)
    settings = {"codebook_size": K, "null_label": network.null_label, "seeds": [3, 4, 5]}
    with torch.inference_mode():
        ours = [state.tokens for state in decode_steps(network, *arguments, **settings)]
        plain = list(plain_steps(plain_transformer(network), *arguments, **settings))
    assert len(ours) == len(plain)
    for one, other in zip(ours, plain, strict=True):
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
    network = small_network("class_token")
    config = TrainConfig(batch_size=4, label_smoothing=0.1, class_drop=0.5)
    tokens = torch.randint(K, (8, 1, 16), generator=torch.Generator().manual_seed(0))
    data = TokenData(tokens, torch.arange(8) % 3, ["a", "b", "c"])
    ours = TransformerStage(network, torch.nn.Identity(), data, None, config)
    plain = PlainTransformerStage(
        plain_transformer(network), torch.nn.Identity(), data, None, config
    )
    torch.testing.assert_close(ours.loss(3)[0], plain.loss(3)[0])


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


def test_spread_is_the_median_and_the_extremes():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert spread([4.0, 1.0, 2.0, 3.0]).median == 2.0
    assert spread([2.0, 4.0, 8.0]).per(8) == Spread(2.0, 1.0, 4.0, 3)
    assert spread([2.0]).times(10) == Spread(20.0, 20.0, 20.0, 1)
    with pytest.raises(ValueError, match="^values must"):
        spread([])


def test_calls_take_turns_after_a_round_that_is_not_counted():
    order = []
    times = in_turn([lambda: order.append("a"), lambda: order.append("b")], 3, 60.0)
    assert order == ["a", "b"] * 4
    assert [len(values) for values in times] == [3, 3]


def test_a_round_beyond_the_limit_is_counted_once():
    calls = []
    times = in_turn([lambda: calls.append(1)], 3, 0.0)
    assert len(calls) == 1 and len(times[0]) == 1


def test_work_of_a_pass_is_that_of_its_products():
    network = small_network("class_token")
    config = network.config
    tokens, labels = torch.full((2, 16), K), torch.tensor([0, 1])
    rows, width = 2 * 17, config.width
    block = 4 * width**2 + 2 * width * config.mlp_width
    products = rows * (2 * width**2 + config.depth * block) + 2 * 16 * (width**2 + width * K)
    attention = config.depth * 2 * 2 * 17**2 * width
    with torch.inference_mode():
        assert gflop_of_pass(network, tokens, labels) * 1e9 == 2 * (products + attention)


def test_what_would_take_too_long_is_left_out(checkpoint):
    bench = Bench(load_model(checkpoint), checkpoint, repeats=1, limit=1.0)
    calls = []
    row = compare(bench, "a", "b", lambda: calls.append(1), None, expected=(100.0, 0.0))
    assert row.value is None and "left out" in row.note and not calls
    row = compare(bench, "a", "b", lambda: None, lambda: calls.append(1), expected=(0.0, 100.0))
    assert row.value is not None and row.ratio is None and "plain" in row.note and not calls


@pytest.mark.parametrize("name", RANDOM_MODELS)
def test_known_shapes_have_the_published_numbers_of_parameters(name):
    with torch.device("meta"):
        tokenizer, config = RANDOM_MODELS[name]()
        transformer = build_transformer(config)
    count = sum(parameter.numel() for parameter in transformer.parameters())
    assert tokenizer.config.grid_size == config.grid_size
    assert tokenizer.config.codebook_size == config.codebook_size
    expected = {"imagenet-256-tiny": 23.03e6, "maskgit-v1-256": 174.161e6, "embedded": 6.97e6}
    assert count == pytest.approx(expected[name], rel=1e-3)


def test_random_weights_are_the_same_each_time_and_leave_the_global_state_alone():
    before = torch.random.get_rng_state()
    one, other = load_model("random:embedded"), load_model("random:embedded")
    assert torch.equal(before, torch.random.get_rng_state())
    for name, tensor in one.transformer.state_dict().items():
        assert torch.equal(tensor, other.transformer.state_dict()[name])
        assert tensor.any(), name


def test_a_quarter_of_the_photo_is_the_hole(checkpoint):
    hole = hole_of(Bench(load_model(checkpoint), checkpoint))
    assert hole.mean() == 0.25


def test_every_part_in_this_process_gives_rows(checkpoint):
    seen, elsewhere = [], {"import", "memory", "app"}
    rows, facts = benchmark(
        checkpoint,
        [part for part in PARTS if part not in elsewhere],
        repeats=1,
        limit=30.0,
        steps=[2],
        batches=[1],
        threads=1,
        progress=lambda done, total, label: seen.append((done, total)),
    )
    assert facts["codebook_size"] == K and facts["threads"] == 1
    total = seen[-1][1]
    assert seen == [(done, total) for done in range(total + 1)]
    expected = set(PARTS) - elsewhere
    if not (int8_works() or bfloat16_pays("cpu")):
        expected -= {"precision"}
    assert {row.part for row in rows} == expected
    assert all(row.value is not None and row.value.median > 0 for row in rows)
    with_ratio = {row.part for row in rows if row.ratio is not None}
    assert with_ratio == {"forward", "decode", "live", "first", "inpaint", "train"}
    for row in rows:
        if row.ratio is not None:
            quotient = row.plain.median / row.value.median
            better = quotient if row.part != "train" else 1 / quotient
            assert row.ratio == pytest.approx(better)


def test_memory_is_that_of_this_process():
    before = peak_megabytes()
    block = torch.ones(50_000_000 // 4)
    assert peak_megabytes() >= before > 10 and block.sum() > 0
    assert math.isnan(peak_megabytes(2**22 + 1))


def test_the_command_prints_a_table_and_writes_json(checkpoint, tmp_path, capsys):
    target = tmp_path / "numbers.json"
    options = ["--only", "load, forward", "--repeats", "1", "--batches", "1", "--threads", "1"]
    assert main(["benchmark", "--model", checkpoint, *options, "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(target.read_text())
    assert result["model"] == checkpoint and "processor" in result
    assert [row["part"] for row in result["rows"]] == ["load"] + ["forward"] * 4
    for row in result["rows"]:
        assert row["case"] in printed and row["value"]["repeats"] == 1


def test_columns_are_aligned():
    rows = [
        Row("forward", "batch 1", "ms", Spread(12.345, 12, 13, 5), Spread(24.69, 24, 25, 5), 2.0),
        Row("forward", "batch 16, longer", "ms", None, note="left out"),
    ]
    header, rule, one, other = format_table(rows).splitlines()
    assert rule.split() == ["-" * len(part) for part in rule.split()]
    assert header.index("unit") == one.index("ms") == other.index("ms")
    assert "12.3" in one and "12.0 to 13.0" in one and "2.00x" in one and "left out" in other
    assert other.startswith(" ") and one.startswith("forward")


def test_parts_are_chosen_by_name():
    assert chosen_parts(None) == PARTS
    assert chosen_parts("train, load") == ("load", "train")
    for bad in ("speed", "", ","):
        with pytest.raises(ValueError, match="^only must name parts"):
            chosen_parts(bad)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "random:huge"], "random:embedded"),
        (["--only", "speed"], "only"),
        (["--repeats", "0"], "repeats"),
        (["--limit", "-1"], "limit"),
        (["--steps", "0"], "steps"),
        (["--batches", "0"], "batches"),
        (["--threads", "0"], "threads"),
        (["--model", "no/such/folder"], "no/such/folder"),
    ],
)
def test_bad_options_give_one_line_and_exit_code_two(options, named, capsys):
    assert main(["benchmark", *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("python -m maskgit_core benchmark:") and named in error


@pytest.mark.parametrize("name", ["train tokenizer", "train transformer"])
def test_memory_of_training_is_measured_on_a_real_step(checkpoint, name):
    assert PROBES[name](Bench(load_model(checkpoint), checkpoint)) is True
