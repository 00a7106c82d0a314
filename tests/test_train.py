"""The train command: one command from photos to a model, what it chooses, runs that go on."""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import tiny
from commands import assert_refused, from_nothing, run, sets
from maskgit_core import MaskGIT
from maskgit_core.cli.main import build_parser
from maskgit_core.data import shards
from maskgit_core.data.checks import check_readable
from maskgit_core.data.photos import Photos
from maskgit_core.distributed import group
from maskgit_core.networks.tokenizer import VQTokenizer
from maskgit_core.training import results, tokenizer_stage, transformer_stage
from maskgit_core.training.budget import Interrupted, train_stage
from maskgit_core.training.choices import SHIPPED, choose, pick_preset
from maskgit_core.training.results import CardFacts, StageFacts, model_card
from maskgit_core.weights.checkpoint import load_checkpoint, save_checkpoint


def from_checkpoint(data: Path, out: Path, init: Path, *more: object) -> list[object]:
    command = ["train", "--data", data, "--out", out, "--init", init, "--minutes", 0]
    settings = sets("transformer_training.max_steps=3", "transformer_training.batch_size=4")
    return [*command, "--samples", 0, *settings, *more]


def test_both_stages_from_nothing(capsys, tmp_path):
    photos = tiny.write_photos(tmp_path / "photos", ["Straße 7", "море", "山 | 川"], count=2)
    out = tmp_path / "out"
    assert run(*from_nothing(photos, out)) == 0
    printed = capsys.readouterr().out
    assert f"python app.py --checkpoint {out / 'checkpoint'}" in printed
    assert "tokenizer and transformer are trained from nothing" in printed
    assert re.search(r"^transformer: making batches took \d+\.\d % of", printed, re.MULTILINE)
    assert "6 photos in all: the model will learn them by heart" in printed
    model = MaskGIT.from_pretrained(out / "checkpoint")
    assert sorted(model.classes) == sorted(["Straße 7", "море", "山 | 川"])
    assert model.generate(labels=["море"], seed=0).images.shape == (1, 3, 16, 16)
    card = (out / "checkpoint" / "README.md").read_text(encoding="utf-8")
    assert "Straße 7 | 2" in card and "山 \\| 川 | 2" in card
    assert "6 photos are few" in card
    assert (out / "checkpoint" / "samples.jpg").stat().st_size > 500
    assert json.loads((out / "train.json").read_text())["stages"]["transformer"]["steps"] == 4
    # Finished: the same command trains nothing more; another one is refused.
    before = (out / "transformer" / "metrics.jsonl").read_text()
    assert run(*from_nothing(photos, out)) == 0
    assert (out / "transformer" / "metrics.jsonl").read_text() == before
    changed = from_nothing(photos, out, "--minutes", 3)
    assert_refused(capsys, *changed, says="minutes was 0, is 3.0; give it those")
    tiny.write_photos(photos, ["new"], count=1)
    assert_refused(capsys, *from_nothing(photos, out), says="classes was")


def test_the_report_measures_the_held_out_photos(monkeypatch, tmp_path, tiny_checkpoint):
    seen = []

    def evaluate(model: MaskGIT, folders: object, *more: object, **settings: object) -> dict:
        seen.append(folders)
        return {"psnr": 20.5}

    monkeypatch.setattr(results, "evaluate", evaluate)
    photos = tiny.write_photos(tmp_path / "photos", ["forest", "sea"], count=2)
    val = tiny.write_photos(tmp_path / "val", ["forest", "sea"], count=1)
    asked = {"--val": val}, {}
    for number, options in enumerate(asked):
        more = [word for option in options.items() for word in option]
        out = tmp_path / f"out-{number}"
        assert run(*from_checkpoint(photos, out, tiny_checkpoint, "--samples", 4, *more)) == 0
        card = (out / "checkpoint" / "README.md").read_text(encoding="utf-8")
        assert "| psnr | 20.5 |" in card
        assert ("too good to be true" in card) == (not options)
    assert seen == [(photos, val), (None, photos)]


def test_all_parts_compute_where_the_option_says(capsys, monkeypatch, tmp_path):
    # The CPU by another name: not equal to what a part takes that was told nothing.
    chosen, asked = torch.device("cpu", 0), []
    assert chosen != torch.device("cpu")
    seen: dict[str, list[object]] = {}
    monkeypatch.setattr(group, "local_device", lambda name: asked.append(name) or chosen)

    def watch(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def watched(*arguments: object, **options: object) -> object:
            bound = inspect.signature(real).bind(*arguments, **options)
            seen.setdefault(name, []).append(bound.arguments.get("device"))
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    watch(tokenizer_stage, "TokenizerStage")
    watch(transformer_stage, "TransformerStage")
    watch(results, "write_results")
    moved: list[object] = []  # by the tokenizer, and where extraction begins
    real_to, real_extract = torch.nn.Module.to, shards.extract_tokens

    def to(module: torch.nn.Module, *arguments: object, **options: object) -> torch.nn.Module:
        if isinstance(module, VQTokenizer) and arguments:
            moved.append(arguments[0])
        return real_to(module, *arguments, **options)

    def extract(tokenizer: torch.nn.Module, *arguments: object, **options: object) -> object:
        moved.append("extraction")
        return real_extract(tokenizer, *arguments, **options)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    monkeypatch.setattr(shards, "extract_tokens", extract)
    photos = tiny.write_photos(tmp_path / "photos", ["a", "b"], count=2)
    for index in range(30):  # so many that some are set aside
        tiny.picture(index).save(photos / "a" / f"more-{index}.png")
    assert run(*from_nothing(photos, tmp_path / "out"), "--device", "cuda") == 0
    assert set(asked) == {"cuda"}
    # Two of the transformer's measure seen and held-out photos.
    assert {name: len(found) for name, found in seen.items()} == {
        "TokenizerStage": 1,
        "TransformerStage": 3,
        "write_results": 1,
    }
    assert all(device == chosen for found in seen.values() for device in found), seen
    assert moved[:2] == [chosen, chosen]  # training it, then the one that was exported
    assert moved.index("extraction") == 2 and moved[-1] == chosen
    monkeypatch.undo()
    if not torch.cuda.is_available():
        command = [*from_nothing(photos, tmp_path / "two"), "--device", "cuda"]
        assert_refused(capsys, *command, says="device cuda needs one GPU")
    command = [*from_nothing(photos, tmp_path / "two"), "--device", "tpu"]
    assert_refused(capsys, *command, says="device must be one of auto, cpu, cuda; got 'tpu'")


@pytest.mark.parametrize("pays", [False, True])
def test_a_cpu_trains_in_bfloat16_where_that_is_faster(monkeypatch, pays):
    monkeypatch.setattr("maskgit_core.devices.precision.bfloat16_pays", lambda device: pays)
    arguments = ["train", "--data", "photos", "--out", "out", "--init", "none"]
    chosen = choose(build_parser().parse_args(arguments), 10, "cpu").preset
    expected = "bfloat16" if pays else "auto"
    assert chosen.tokenizer_training.precision == expected
    assert chosen.transformer_training.precision == expected
    arguments += ["--set", "transformer_training.precision=float32"]
    chosen = choose(build_parser().parse_args(arguments), 10, "cpu").preset
    assert chosen.transformer_training.precision == "float32"


def test_a_model_learns_new_classes_and_keeps_its_own(capsys, tmp_path, tiny_checkpoint):
    photos = tiny.write_photos(tmp_path / "photos", ["SEA", "cat"])
    out = tmp_path / "out"
    assert run(*from_checkpoint(photos, out, tiny_checkpoint)) == 0
    old, new = load_checkpoint(tiny_checkpoint), load_checkpoint(out / "transformer" / "checkpoint")
    assert new.classes == [*old.classes, "cat"]
    # Classes that the data does not show have the rows that they had.
    for name in ("forest", "été"):
        row = old.transformer.config.codebook_size + 1 + old.classes.index(name)
        assert torch.equal(
            old.transformer.embedding.weight[row], new.transformer.embedding.weight[row]
        )
    row = old.transformer.config.codebook_size + 1 + old.classes.index("sea")
    assert not torch.equal(
        old.transformer.embedding.weight[row], new.transformer.embedding.weight[row]
    )
    for name, weight in old.tokenizer.state_dict().items():
        assert torch.equal(weight, new.tokenizer.state_dict()[name]), name
    out = tmp_path / "other"
    assert run(*from_checkpoint(photos, out, tiny_checkpoint, "--no-keep-classes")) == 0
    assert load_checkpoint(out / "checkpoint").classes == ["SEA", "cat"]


def test_a_model_goes_on_at_another_size_and_its_card_says_so(capsys, tmp_path, tiny_checkpoint):
    photos = tiny.write_photos(tmp_path / "photos", ["SEA", "cat"])
    out = tmp_path / "out"
    command = from_checkpoint(photos, out, tiny_checkpoint, "--image-size", 24)
    assert run(*command) == 0
    printed = capsys.readouterr().out
    card = (out / "checkpoint" / "README.md").read_text(encoding="utf-8")
    for sentence in (
        (
            "The tokenizer of 16 x 16 pixels reads 24 x 24 pixels, 6 x 6 tokens; its weights fit "
            "every size."
        ),
        "The table of positions was interpolated from 4 x 4 to 6 x 6 tokens.",
        'Classes added: cat; each starts at the row of "no class", with a little noise.',
    ):
        assert printed.count(sentence) == card.count(sentence) == 1
    model = MaskGIT.from_pretrained(out / "checkpoint")
    assert (model.image_size, model.grid_size) == (24, 6)
    assert model.classes == [*load_checkpoint(tiny_checkpoint).classes, "cat"]
    assert model.generate(labels=["cat"], seed=0).images.shape == (1, 3, 24, 24)
    # Decided once: the same command goes on, another size is another run.
    assert run(*command) == 0
    other = from_checkpoint(photos, out, tiny_checkpoint, "--image-size", 32)
    assert_refused(capsys, *other, says="set was")


def test_a_size_that_does_not_fit_is_told_before_anything_is_written(
    capsys, photo_folder, tmp_path, tiny_checkpoint
):
    out = tmp_path / "out"
    for size in (18, 2, 0, -4):
        command = from_checkpoint(photo_folder, out, tiny_checkpoint, "--image-size", size)
        assert_refused(capsys, *command, says="image_size must be a multiple of 4, the side of a t")
        assert_refused(capsys, *from_nothing(photo_folder, out, "--image-size", size), says="image")
    merging = tmp_path / "merging"
    network = tiny.transformer(kind="adaln", merge=2)
    save_checkpoint(merging, tokenizer=tiny.tokenizer(), transformer=network, classes=tiny.CLASSES)
    command = from_checkpoint(photo_folder, out, merging, "--image-size", 20)
    assert_refused(capsys, *command, says="must divide the grid; got a grid of 5 x 5")
    save_checkpoint(merging, tokenizer=tiny.tokenizer(), classes=tiny.CLASSES)
    command = from_checkpoint(photo_folder, out, merging)
    assert_refused(capsys, *command, says="init must hold a transformer")
    assert not out.exists()


def test_broken_photos_are_named_and_a_class_of_them_is_refused(
    capsys, photo_folder, tmp_path, tiny_checkpoint
):
    (photo_folder / "sea" / "bad.jpg").write_bytes(b"no image")
    assert run(*from_checkpoint(photo_folder, tmp_path / "out", tiny_checkpoint)) == 0
    said = f"1 photo could not be read: {Path('sea', 'bad.jpg')}"
    assert said in capsys.readouterr().out
    assert said in (tmp_path / "out" / "checkpoint" / "README.md").read_text()
    (photo_folder / "broken").mkdir()
    (photo_folder / "broken" / "a.png").write_bytes(b"")
    command = from_checkpoint(photo_folder, tmp_path / "two", tiny_checkpoint)
    assert run(*command) == 2
    assert "no photo of these classes can be read: broken" in capsys.readouterr().err
    with pytest.raises(ValueError, match="broken"):
        check_readable(Photos(np.zeros((1, 1, 1, 3)), torch.tensor([0]), ["a", "broken"], []))


def test_wrong_options_are_one_line(capsys, photo_folder, tmp_path, tiny_checkpoint):
    command = ["train", "--data", photo_folder, "--out", tmp_path / "out"]
    assert_refused(capsys, *command, "--preset", "scene-flowers-xs", says="did you mean")
    assert_refused(capsys, *command, "--minutes", -1, says="minutes must be")
    assert_refused(capsys, *command, "--init", tmp_path / "no", says="no checkpoint folder")
    both = ["--init", tiny_checkpoint, "--tokenizer", tiny_checkpoint]
    assert_refused(capsys, *command, *both, says="not both")
    more = ["--init", tiny_checkpoint, *sets("depth=3")]
    assert_refused(capsys, *command, *more, says="set changes transformer")
    assert not (tmp_path / "out").exists()


def test_what_is_chosen_follows_device_and_data(tiny_checkpoint):
    assert pick_preset("cpu", 10**6) == "scenes-flowers-xs"
    assert pick_preset("cuda", 300) == "scenes-flowers-s"
    assert pick_preset("cuda", 10**6) == "imagenet-256-small"
    from maskgit_core.cli.main import build_parser

    def chosen(*options: str, photos: int = 300, device: str = "cpu"):
        words = ["train", "--data", "x", "--out", "y", *options]
        return choose(build_parser().parse_args(words), photos, device)

    few = chosen()
    assert few.init == SHIPPED and not few.keep_classes and few.seconds == 900
    assert few.preset.transformer_training.learning_rate == pytest.approx(2e-3 / 4)
    assert chosen(photos=50_000).init is None
    assert chosen(device="cuda").init is None and chosen(device="cuda").seconds == math.inf
    assert chosen("--minutes", "0").seconds == math.inf
    assert chosen("--init", "none").preset.transformer_training.learning_rate == 2e-3
    given = chosen("--init", str(tiny_checkpoint))
    assert given.keep_classes and given.tokenizer == str(tiny_checkpoint)
    # A chosen preset names the size of what goes on; a tokenizer that is kept has its own.
    assert given.image_size is None
    assert chosen("--init", str(tiny_checkpoint), "--preset", "scenes-flowers-s").image_size == 96
    asked = chosen("--init", str(tiny_checkpoint), "--set", "tokenizer.image_size=24")
    assert asked.image_size == 24
    asked = chosen("--init", str(tiny_checkpoint), "--image-size", "20")
    assert asked.image_size == 20
    assert chosen("--init", "none", "--image-size", "64").preset.tokenizer.image_size == 64
    published = ["--init", str(tiny_checkpoint), "--preset", "imagenet-256-small"]
    assert chosen(*published).image_size is None
    kept = chosen("--tokenizer", str(tiny_checkpoint))
    assert kept.image_size is None and kept.init is None and kept.tokenizer == str(tiny_checkpoint)


def test_a_budget_ends_a_stage_and_its_length_is_kept(monkeypatch, tmp_path):
    """An interrupted stage goes on to the number of steps that its trial decided."""
    from contextlib import nullcontext

    import runs
    from maskgit_core.training import budget

    times = iter(range(10**6))
    monkeypatch.setattr(budget.time, "monotonic", lambda: float(next(times)))
    config = tiny.SECOND
    calls = []

    def fake_train(stage, config, out, *, report, max_seconds):
        calls.append((config.max_steps, max_seconds))
        if len(calls) == 1:
            for step in range(1, 5):
                report(step, {})
            return 4
        return 6 if len(calls) == 2 else config.max_steps

    monkeypatch.setattr(budget, "train", fake_train)
    settings = {"minutes": 1.0}
    reporting = lambda config, out: nullcontext(lambda step, measures: None)  # noqa: E731
    stage = runs.transformer_stage(config)

    def go_on() -> int:
        run_file = budget.RunFile.open(tmp_path, settings)
        return train_stage(
            "one", stage, config, run_file, tmp_path, num_images=24, seconds=60.0,
            reporting=reporting,
        )  # fmt: skip

    with pytest.raises(Interrupted):
        go_on()
    planned = calls[1][0]
    # One step a tick of the clock: what is left of a minute after the trial, with a margin.
    assert 40 < planned < 60
    assert go_on() == planned and len(calls) == 3
    # Finished: nothing is left to train, but what it exports is looked after.
    assert go_on() == planned and [steps for steps, _ in calls[1:]] == [planned] * 3
    with pytest.raises(ValueError, match="minutes was 1.0, is 2.0"):
        budget.RunFile.open(tmp_path, {"minutes": 2.0})
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        budget.RunFile.open(tmp_path, settings)


def test_the_card_names_what_was_given_and_how_much_was_measured(tmp_path, tiny_checkpoint):
    photos = tiny.write_photos(tmp_path / "photos")
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / ".README.md.00ff00ff.part"
    left.write_text("half")
    command = ["train", "--data", photos, "--out", tmp_path / "out", "--minutes", 0.01]
    command += ["--tokenizer", tiny_checkpoint, "--preset", "scenes-flowers-xs", "--samples", 1]
    settings = ["transformer.width=16", "depth=1", "num_heads=2", "mlp_width=32"]
    settings += ["transformer_training.batch_size=4", "sampling.num_steps=2"]
    assert run(*command, *sets(*settings)) == 0
    card = (tmp_path / "out" / "checkpoint" / "README.md").read_text(encoding="utf-8")
    given = ["--preset scenes-flowers-xs", f"--tokenizer {tiny_checkpoint.name}", "--samples 1"]
    for words in (*given, "--minutes 0.01", *(f"--set {setting}" for setting in settings)):
        assert words in card, words
    assert str(tmp_path) not in card
    # More were drawn, so that there is something to measure.
    assert "\n- 4 samples: " in card
    assert not left.exists()


def test_the_card_says_when_photos_were_learned_by_heart():
    facts = CardFacts(
        title="mine",
        image_size=96,
        grid_size=12,
        codebook_size=1024,
        counts={"a": 900, "b": 900},
        held_out=200,
        preset="scenes-flowers-xs",
        stages=[StageFacts("transformer", 7_000_000, "random weights", 100, 32)],
        minutes=12.0,
        device="CPU cores",
        losses=(3.0, 5.5),
        measures={"psnr": 21.5},
    )
    card = model_card(facts)
    assert (
        "by heart" in card and "3.00 nats" in card and "5.50" in card and "| psnr | 21.5 |" in card
    )
    fine = model_card(CardFacts(**{**vars(facts), "losses": (5.4, 5.5)}))
    assert "by heart" not in fine
