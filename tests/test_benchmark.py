"""The benchmark: every part gives times, and the command tables and JSON of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from maskgit_core.benchmark.models import SHAPES, load_model
from maskgit_core.benchmark.run import PARTS, benchmark, chosen_parts
from maskgit_core.benchmark.start import start_cases, start_seconds
from maskgit_core.benchmark.timing import Setup
from maskgit_core.cli.main import main
from maskgit_core.networks.registry import build_transformer


@pytest.mark.parametrize("name", SHAPES)
def test_known_shapes_have_the_published_numbers_of_parameters(name):
    with torch.device("meta"):
        build, settings, config = SHAPES[name]
        tokenizer, transformer = build(settings), build_transformer(config)
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


def test_every_part_in_this_process_gives_times(tiny_checkpoint):
    seen, threads = [], torch.get_num_threads()
    found, facts = benchmark(
        str(tiny_checkpoint),
        [part for part in PARTS if part != "start"],
        seconds=0.0,
        steps=[2],
        batches=[1, 2],
        threads=1,
        progress=lambda done, total, label: seen.append((done, total)),
    )
    assert facts["codebook_size"] == 32 and facts["threads"] == 1
    assert torch.get_num_threads() == threads
    assert seen == [(done, len(found)) for done in range(len(found) + 1)]
    assert all(one.median > 0 and one.num_threads == 1 for one in found)
    rows = [(one.label, one.sub_label, one.description) for one in found]
    assert len(set(rows)) == len(rows)
    assert rows[:3] == [
        ("load", "from a checkpoint", ""),
        ("forward", "one pass", "batch 1"),
        ("forward", "one pass", "batch 2"),
    ]
    assert [row for part, row, column in rows if part == "decode" and column == "batch 2"] == [
        "2 steps: first step",
        "2 steps: tokens",
        "2 steps: images",
    ]
    trained = {row.partition(",")[0] for part, row, _ in rows if part == "train"}
    assert trained == {"tokenizer", "transformer"}
    assert "float32" in {column for part, _, column in rows if part == "train"}


def test_a_page_is_timed_from_its_start(tmp_path):
    app = tmp_path / "page.py"
    app.write_text(
        "import sys, http.server as h\n"
        "class Page(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "h.HTTPServer(('127.0.0.1', int(sys.argv[sys.argv.index('--port') + 1])), Page)"
        ".serve_forever()\n"
    )
    assert start_seconds(app, "any") > 0
    app.write_text("raise SystemExit('no such model')")
    with pytest.raises(ValueError, match="^app must start; it ended: no such model"):
        start_seconds(app, "any")


def test_the_page_is_started_only_where_it_can_be(tiny_model, tmp_path):
    assert start_cases(Setup(tiny_model, "random:embedded", app=__file__)) == []
    assert start_cases(Setup(tiny_model, "folder", app="")) == []
    assert start_cases(Setup(tiny_model, "folder", app=str(tmp_path / "app.py"))) == []
    (case,) = start_cases(Setup(tiny_model, "folder", app=__file__))
    assert case.part == "start"


def test_the_command_prints_tables_and_writes_json(tiny_checkpoint: Path, tmp_path, capsys):
    target = tmp_path / "numbers.json"
    options = ["--only", "load, forward", "--seconds", "0", "--batches", "1", "--threads", "1"]
    model = str(tiny_checkpoint)
    assert main(["benchmark", "--model", model, *options, "--json", str(target)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(target.read_text())
    assert result["model"] == model and "processor" in result
    assert [row["part"] for row in result["rows"]] == ["load", "forward"]
    for row in result["rows"]:
        assert row["row"] in printed and row["seconds"] > 0 and row["measurements"] >= 1
    assert printed.index(" load ") < printed.index(" forward ") and "batch 1" in printed


def test_parts_are_chosen_by_name():
    assert chosen_parts(None) == list(PARTS)
    assert chosen_parts("train, load") == ["load", "train"]
    for bad in ("speed", "", ",", "load,"):
        with pytest.raises(ValueError, match="^only must name parts"):
            chosen_parts(bad)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--model", "random:huge"], "random:embedded"),
        (["--only", "speed"], "only"),
        (["--seconds", "-1"], "seconds"),
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
