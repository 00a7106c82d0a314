"""What the Training tab reads and draws of runs that are being written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from PIL import Image

from app import main, parse_arguments
from demo.runs.training_runs import draw_curves, find_runs, read_curves


def write_run(folder: Path, lines: list[dict[str, float]], tail: bytes = b"") -> Path:
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_bytes(text.encode() + tail)
    return folder


LINES = [{"step": step, "loss": 6 - step / 10, "images_per_second": 9.5} for step in (1, 2, 3)]


def test_runs_are_found_wherever_they_are_the_newest_first(tmp_path):
    assert find_runs(tmp_path) == []
    old = write_run(tmp_path / "mine" / "tokenizer", LINES)
    new = write_run(tmp_path / "mine" / "transformer", LINES)
    write_run(tmp_path / ".hidden", LINES)
    os.utime(old / "metrics.jsonl", (1000, 1000))
    os.utime(new / "metrics.jsonl", (2000, 2000))
    assert [run.name for run in find_runs(tmp_path)] == ["mine/transformer", "mine/tokenizer"]
    assert [run.name for run in find_runs(new)] == ["transformer"]


def test_torn_and_foreign_lines_are_left_out(tmp_path):
    tail = b'[1]\n{"loss": 2}\n{"step": "x", "loss": 1}\n\xff\xfe\n{"step": 4, "lo'
    write_run(tmp_path / "a", LINES, tail)
    (run,) = find_runs(tmp_path)
    curves = read_curves(run)
    assert [step for step, _ in curves["loss"]] == [1.0, 2.0, 3.0]
    before = run.stamp()
    with (run.folder / "metrics.jsonl").open("ab") as log:
        log.write(b'ss": 1.5}\n')
    assert run.stamp() != before
    assert [step for step, _ in read_curves(run)["loss"]] == [1.0, 2.0, 3.0, 4.0]


def test_sheets_are_sorted_by_step(tmp_path):
    folder = write_run(tmp_path / "a", LINES)
    for name in (
        "sheet-0000010.png",
        "sheet-0000009.png",
        "sheet-x.png",
        ".sheet-0000001.png.part",
    ):
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")
    assert list(find_runs(tmp_path)[0].sheets()) == [9, 10]


def test_curves_are_drawn_and_odd_values_left_out():
    html = draw_curves({"loss": [(1, 5.0), (2, float("nan")), (3, 4.0)], "other": [(1, 1.0)]})
    assert html.count("<svg") == 1 and "nan" not in html
    points = html.split('points="')[1].split('"')[0].split()
    assert len(points) == 2
    # Further right and, since the loss fell, further down.
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in points)
    assert x1 > x0 and y1 > y0
    both = draw_curves({"accuracy": [(1, 0.1)], "val_accuracy": [(1, 0.1)]})
    assert both.count("<polyline") == 2 and both.count("<circle") == 2
    assert "training 0.1" in both and "held out 0.1" in both
    assert "nothing yet" in draw_curves({})
    long = draw_curves({"loss": [(float(step), 1.0) for step in range(5000)]})
    assert len(long.split('points="')[1].split('"')[0].split()) < 500


def test_the_tab_is_there_only_when_asked_for(tiny_model, tmp_path):
    from demo.ui import build_demo

    def tabs(demo) -> list[str]:
        return [b.label for b in demo.blocks.values() if type(b).__name__ == "Tab"]

    assert "Training" not in tabs(build_demo(tiny_model))
    assert tabs(build_demo(tiny_model, training_dir=tmp_path))[-1] == "Training"


def test_a_missing_training_folder_is_one_line(capsys, tmp_path):
    assert parse_arguments([]).training_dir is None
    assert main(["--training-dir", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_look_brings_what_is_new_and_nothing_twice(tiny_model, tmp_path):
    import gradio as gr

    from demo.ui import build_demo

    folder = write_run(tmp_path / "a", LINES)
    demo = build_demo(tiny_model, training_dir=tmp_path)
    (look,) = {f.fn for f in demo.fns.values() if getattr(f.fn, "__name__", "") == "look"}
    first = look("a", "newest", None)
    assert first[0]["choices"] == ["a"] and "<svg" in first[3] and first[4]["visible"] is False
    again = look("a", "newest", first[5])
    assert again[3] == again[4] == gr.skip()
    Image.new("RGB", (4, 4)).save(folder / "sheet-0000003.png")
    third = look("a", "newest", first[5])
    assert third[4]["visible"] and third[1]["choices"] == ["newest", "3"]
    assert look("../../etc", "3", None)[0]["value"] == "a"
    (folder / "metrics.jsonl").unlink()
    assert look("a", "newest", third[5])[2].startswith("There is no run here yet")
