"""Both stages: exact resume, clean stops, full disks, and a codebook that stays in use."""

from __future__ import annotations

import copy
import errno
import functools
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from maskgit_core import CheckpointError, SamplingConfig, TrainConfig
from maskgit_core import checkpoint as checkpoint_module
from maskgit_core import tokenizer_stage as tokenizer_module
from maskgit_core.checkpoint import load_checkpoint
from maskgit_core.data import Photos, step_generator
from maskgit_core.tokenizer_stage import TokenizerStage, kmeans, revive_dead_codes_
from maskgit_core.training import rate_factor, stop_on_signal, train, update_ema_
from maskgit_core.transformer_stage import (
    TokenData,
    TransformerStage,
    crop_corners,
    extract_tokens,
    token_geometry,
)

STATE, METRICS, WEIGHTS = "state.pt", "metrics.jsonl", "checkpoint"


class StopTrainingError(Exception):
    """Stands for a crash."""


def tokenizer_stage(config: TrainConfig, **changes: object) -> TokenizerStage:
    return TokenizerStage(tiny.tokenizer(**changes).train(), tiny.photos(), None, config)


def transformer_stage(config: TrainConfig, **changes: object) -> TransformerStage:
    network = tiny.transformer(**changes).train()
    sampling = SamplingConfig(num_steps=2)
    return TransformerStage(network, tiny.tokenizer(), token_data(), None, config, sampling)


@functools.cache
def token_data() -> TokenData:
    return extract_tokens(tiny.tokenizer(), tiny.photos(), crops=5)


def plain_transformer_stage(config: TrainConfig) -> TransformerStage:
    return transformer_stage(config)


def dropout_transformer_stage(config: TrainConfig) -> TransformerStage:
    return transformer_stage(config, dropout=0.2)


STAGES = [tokenizer_stage, plain_transformer_stage, dropout_transformer_stage]
# Muon, weight decay, dropped tokens: all that a step can do.
BUSY = replace(tiny.TRAIN, matrix_learning_rate=0.01, weight_decay=0.01, token_drop=0.1)


def lines(folder: Path) -> list[dict[str, float]]:
    found = []
    for text in (folder / METRICS).read_text().splitlines():
        line = json.loads(text)
        line.pop("images_per_second", None)
        found.append(line)
    return found


def assert_same_tensors(left: object, right: object, path: str = "state") -> None:
    assert type(left) is type(right), path
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert list(left) == list(right), path
        for key in left:
            assert_same_tensors(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same_tensors(a, b, f"{path}.{index}")
    else:
        assert left == right, path


def assert_same_runs(left: Path, right: Path) -> None:
    assert lines(left) == lines(right)
    states = [torch.load(folder / STATE, weights_only=True) for folder in (left, right)]
    assert_same_tensors(*states)
    for path in (left / WEIGHTS).iterdir():
        assert path.read_bytes() == (right / WEIGHTS / path.name).read_bytes(), path.name


@pytest.fixture
def revived(monkeypatch) -> list[int]:
    """How many codes each revival found dead."""
    counts, real = [], tokenizer_module.revive_dead_codes_

    def count(*args):
        dead = real(*args)
        counts.append(len(dead))
        return dead

    monkeypatch.setattr(tokenizer_module, "revive_dead_codes_", count)
    return counts


# A run goes on for one step after a signal, so these stop before, at and after the switch to
# quantisation (4 steps) and the first revival of codes (8 steps).
@pytest.mark.parametrize("signals", [[2, 4, 6, 8, 10], [3, 5, 7, 9]])
@pytest.mark.parametrize("build", STAGES)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(build, signals, tmp_path, revived):
    assert train(build(BUSY), BUSY, tmp_path / "whole") == BUSY.max_steps
    if build is tokenizer_stage:
        assert sum(revived) > 0

    def report(step: int, measures: dict[str, float]) -> None:
        if step in signals:
            os.kill(os.getpid(), signal.SIGTERM)

    ends = []
    while not ends or ends[-1] < BUSY.max_steps:
        torch.manual_seed(len(ends))  # nothing may hang on the global random numbers
        ends.append(train(build(BUSY), BUSY, tmp_path / "parts", report=report))
    assert ends == [*(step + 1 for step in signals), BUSY.max_steps]
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("build", STAGES[:2])
def test_a_run_that_crashed_ends_as_one_that_did_not(build, tmp_path):
    train(build(BUSY), BUSY, tmp_path / "whole")
    crashes = [3, 8, 9]

    def report(step: int, measures: dict[str, float]) -> None:
        if crashes and step == crashes[0]:
            crashes.pop(0)
            raise StopTrainingError

    while crashes:
        with pytest.raises(StopTrainingError):
            train(build(BUSY), BUSY, tmp_path / "parts", report=report)
    train(build(BUSY), BUSY, tmp_path / "parts", report=report)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_the_critic_is_resumed_too(tmp_path):
    config = replace(BUSY, adversarial_weight=0.2, adversarial_start=3, max_steps=8)

    def report(step: int, measures: dict[str, float]) -> None:
        if step in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)

    for folder, signals in (("whole", None), ("parts", report)):
        step = 0
        while step < config.max_steps:
            torch.manual_seed(5)  # the critic starts at random, as a command with a seed does
            stage = tokenizer_stage(config)
            step = train(stage, config, tmp_path / folder, report=signals)
    assert any("adversarial" in line for line in lines(tmp_path / "whole"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_intervals_may_change_when_a_run_goes_on(tmp_path):
    train(tokenizer_stage(BUSY), BUSY, tmp_path / "whole")
    other = replace(BUSY, log_every=2, save_every=3, sample_every=4)
    train(tokenizer_stage(BUSY), BUSY, tmp_path / "parts", max_seconds=0)
    train(tokenizer_stage(other), other, tmp_path / "parts")
    states = [torch.load(tmp_path / f / STATE, weights_only=True) for f in ("whole", "parts")]
    assert_same_tensors(states[0]["model"], states[1]["model"])
    assert_same_tensors(states[0]["ema"], states[1]["ema"])


def test_more_steps_may_be_asked_for(tmp_path):
    short = replace(tiny.TRAIN, max_steps=5)
    assert train(tokenizer_stage(short), short, tmp_path) == 5
    assert train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path) == 12
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))
    # And a finished run stays as it is.
    before = (tmp_path / STATE).read_bytes()
    assert train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path) == 12
    assert (tmp_path / STATE).read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.5}, "learning_rate was 0.002, is 0.5"),
        ({"batch_size": 3, "seed": 9}, "batch_size was 4, is 3; seed was 0, is 9"),
        ({"matrix_learning_rate": 0.02}, "matrix_learning_rate was 0.0, is 0.02"),
        ({"continuous_steps": 2}, "continuous_steps was 4, is 2"),
    ],
)
def test_a_changed_setting_is_named(tmp_path, changes, message):
    train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path, max_seconds=0)
    before = (tmp_path / STATE).read_bytes(), (tmp_path / METRICS).read_bytes()
    config = replace(tiny.TRAIN, **changes)
    with pytest.raises(ValueError, match=message):
        train(tokenizer_stage(config), config, tmp_path)
    assert ((tmp_path / STATE).read_bytes(), (tmp_path / METRICS).read_bytes()) == before


def test_a_changed_network_is_named(tmp_path):
    train(transformer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path, max_seconds=0)
    with pytest.raises(ValueError, match="width was 16, is 24; depth was 2, is 3"):
        train(transformer_stage(tiny.TRAIN, width=24, depth=3), tiny.TRAIN, tmp_path)


def test_a_state_without_the_network_s_settings_is_taken(tmp_path):
    """Older states hold none; a network of another shape is still noticed."""
    train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path, max_seconds=0)
    state = torch.load(tmp_path / STATE, weights_only=True)
    del state["network"]
    torch.save(state, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="state.pt cannot be resumed"):
        train(tokenizer_stage(tiny.TRAIN, widths=(8, 24)), tiny.TRAIN, tmp_path)
    assert train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path) == 12


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_state_that_is_cut_short(tmp_path, share):
    train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path, max_seconds=0)
    whole = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="state.pt cannot be resumed"):
        train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path)
    assert (tmp_path / STATE).read_bytes() == whole[: int(share * len(whole))]


@pytest.mark.parametrize("content", [{}, [1], "text", {"step": 1, "config": {"a": 1}}])
def test_a_state_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / STATE)
    with pytest.raises(CheckpointError, match="state.pt cannot be resumed"):
        train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path)


def test_a_torn_or_missing_log_does_not_stop_a_run(tmp_path):
    train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path, max_seconds=0)
    with (tmp_path / METRICS).open("a") as log:
        log.write('{"step": 2, "loss": 0.5}\n{"step": 3, "lo')
    longer = replace(tiny.TRAIN, max_steps=3)
    train(tokenizer_stage(longer), longer, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    (tmp_path / METRICS).unlink()
    longer = replace(tiny.TRAIN, max_steps=4)
    train(tokenizer_stage(longer), longer, tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [4]


def full_disk(*args: object, **kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_written(state: object, path: str) -> None:
    Path(path).write_bytes(b"half")
    # What torch itself raises there.
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


@pytest.mark.parametrize(
    ("where", "name", "failure"),
    [
        (torch, "save", full_disk),
        (torch, "save", half_written),
        (os, "replace", full_disk),
        (checkpoint_module, "save_file", full_disk),
        (Image.Image, "save", full_disk),
    ],
)
def test_a_full_disk_keeps_what_was_saved(tmp_path, monkeypatch, where, name, failure):
    short = replace(tiny.TRAIN, max_steps=5)
    train(tokenizer_stage(short), short, tmp_path)
    weights = {p.name: p.read_bytes() for p in (tmp_path / WEIGHTS).iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(where, name, failure)
        with pytest.raises(CheckpointError, match="could not write"):
            train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path)
    assert {p.name: p.read_bytes() for p in (tmp_path / WEIGHTS).iterdir()} == weights
    assert not tiny.leftovers(tmp_path)
    # With room again, the same run goes on to its end, as if nothing had been.
    assert train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path) == 12
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))


def test_the_time_limit_stops_cleanly(tmp_path):
    assert train(tokenizer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path, max_seconds=0) == 1
    assert torch.load(tmp_path / STATE, weights_only=True)["step"] == 1


def test_signals_are_handled_once_and_given_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(5)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_training_works_in_a_thread(tmp_path):
    """Only the main thread can handle signals; another one trains without."""
    finished: list[int] = []
    config = replace(tiny.TRAIN, max_steps=2)
    stage = tokenizer_stage(config)
    thread = threading.Thread(target=lambda: finished.append(train(stage, config, tmp_path)))
    thread.start()
    thread.join()
    assert finished == [2]


def test_the_log_and_the_sheets(tmp_path):
    config = replace(tiny.TRAIN, log_every=2)
    train(tokenizer_stage(config), config, tmp_path)
    logged = [json.loads(text) for text in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in logged] == [2, 4, 6, 8, 10, 12]
    for line in logged:
        assert {"loss", "grad_norm", "rate", "l1", "l2", "psnr", "images_per_second"} <= set(line)
        assert ("code_share" in line) == (line["step"] > 4)
        assert ("perplexity" in line) == (line["step"] > 4)
        assert ("val_psnr" in line) == (line["step"] % 6 == 0)
    sheets = sorted(path.name for path in tmp_path.glob("*.png"))
    assert sheets == ["sheet-0000006.png", "sheet-0000012.png"]
    # 2 pairs of rows of 8 photos of 16 pixels, 2 pixels between them.
    assert Image.open(tmp_path / sheets[0]).size == (8 * 18 - 2, 4 * 18 - 2)
    assert not tiny.leftovers(tmp_path)


def test_the_transformer_logs_and_exports(tmp_path):
    train(transformer_stage(tiny.TRAIN), tiny.TRAIN, tmp_path)
    last = lines(tmp_path)[-1]
    assert {"loss", "accuracy", "val_cross_entropy", "val_accuracy"} <= set(last)
    loaded = load_checkpoint(tmp_path / WEIGHTS)
    assert loaded.classes == tiny.CLASSES
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert_same_tensors(dict(loaded.transformer.state_dict()), dict(state["ema"]))
    assert_same_tensors(dict(loaded.tokenizer.state_dict()), dict(tiny.tokenizer().state_dict()))
    assert Image.open(tmp_path / "sheet-0000012.png").size == (4 * 18 - 2, 3 * 18 - 2)


def test_rates_warm_up_and_fall():
    config = replace(tiny.TRAIN, max_steps=100, warmup_steps=10, min_rate=0.1)
    factors = [rate_factor(step, config) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert all(left > right for left, right in zip(factors[10:], factors[11:], strict=False))
    assert rate_factor(500, config) == pytest.approx(0.1)
    assert rate_factor(0, replace(config, warmup_steps=0)) == pytest.approx(1.0)


def test_the_running_mean():
    model = torch.nn.Linear(1, 1)
    ema = copy.deepcopy(model)
    with torch.no_grad():
        model.weight.fill_(1.0)
        ema.weight.fill_(0.0)
    update_ema_(ema, model, 0.9, step=0)  # early steps count more: 1 / 10 is kept
    assert ema.weight.item() == pytest.approx(0.9)
    update_ema_(ema, model, 0.5, step=10_000)
    assert ema.weight.item() == pytest.approx(0.95)


def test_kmeans_finds_separate_clusters():
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (corners[:, None] + 0.1 * torch.randn(3, 50, 2, generator=generator)).flatten(0, 1)
    centres = kmeans(points, 3, 20, step_generator(0, 3))
    assert torch.cdist(corners, centres).min(1).values.max() < 0.5
    assert torch.equal(centres, kmeans(points, 3, 20, step_generator(0, 3)))


def test_kmeans_with_fewer_points_than_centres():
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    centres = kmeans(points, 8, 5, step_generator(0, 0))
    assert centres.shape == (8, 2)
    assert torch.cdist(centres, points).min(1).values.max() == 0


def test_only_dead_codes_are_revived():
    first, second = tiny.tokenizer(0).quantizer, tiny.tokenizer(1).quantizer
    before = [quantizer.codebook.detach().clone() for quantizer in (first, second)]
    counts = torch.full((32,), 100)
    counts[[3, 20]] = torch.tensor([0, 1])
    latents = torch.randn(50, 4)
    dead = revive_dead_codes_((first, second), latents, counts, step_generator(0, 0))
    assert dead.tolist() == [3, 20]
    alive = torch.ones(32, dtype=torch.bool)
    alive[dead] = False
    for quantizer, old in zip((first, second), before, strict=True):
        assert torch.equal(quantizer.codebook[alive], old[alive])
        assert torch.equal(quantizer.codebook[dead], first.codebook[dead])
        assert torch.cdist(quantizer.codebook[dead], latents).min(1).values.max() < 1e-6


def test_the_optimizer_forgets_a_revived_code():
    stage = tokenizer_stage(replace(tiny.TRAIN, continuous_steps=0, max_steps=100, revive_every=1))
    codebook = stage.model.quantizer.codebook
    optimizer = torch.optim.Optimizer([codebook], {})
    optimizer.state[codebook] = {"mean": torch.ones(32, 4), "step": torch.tensor(3.0)}
    stage.loss(1)
    stage.counts = torch.full((32,), 100)
    stage.counts[5] = 0
    stage.after_step(1, copy.deepcopy(stage.model), optimizer)
    mean = optimizer.state[codebook]["mean"]
    assert not mean[5].any() and mean.sum() == 31 * 4
    assert optimizer.state[codebook]["step"] == 3
    assert not stage.counts.any()


def test_the_codebook_does_not_collapse(tmp_path):
    config = replace(
        tiny.TRAIN,
        max_steps=80,
        batch_size=8,
        continuous_steps=15,
        revive_every=10,
        log_every=80,
        sample_every=80,
        save_every=80,
    )
    train(tokenizer_stage(config), config, tmp_path)
    last = lines(tmp_path)[-1]
    assert last["val_code_share"] > 0.7
    assert last["val_perplexity"] > 12
    assert last["val_psnr"] > 10


def test_measures_are_taken_right_after_a_revival(tmp_path):
    config = replace(tiny.TRAIN, max_steps=8, continuous_steps=2, revive_every=1, sample_every=4)
    train(tokenizer_stage(config), config, tmp_path)
    assert [line["step"] for line in lines(tmp_path) if "val_psnr" in line] == [4, 8]


def test_a_run_that_stops_before_quantisation_exports_codes_that_fit(tmp_path):
    config = replace(tiny.TRAIN, continuous_steps=50)
    stage = tokenizer_stage(config)
    train(stage, config, tmp_path)
    tokens = load_checkpoint(tmp_path / WEIGHTS).tokenizer.encode_to_tokens(tiny.images(16))
    assert len(tokens.unique()) > 16
    # The run itself goes on as it would have without the export.
    saved = torch.load(tmp_path / STATE, weights_only=True)["model"]["quantizer.codebook"]
    assert torch.equal(saved, tiny.tokenizer().quantizer.codebook)


def test_fewer_photos_than_a_batch(tmp_path):
    photos = tiny.photos(1)
    config = replace(tiny.TRAIN, max_steps=6)
    stage = TokenizerStage(tiny.tokenizer().train(), photos, None, config)
    assert train(stage, config, tmp_path / "tokenizer") == 6
    data = extract_tokens(stage.model, photos)
    data = TokenData(data.tokens, data.labels, list(tiny.CLASSES))
    stage = TransformerStage(tiny.transformer().train(), stage.model, data, None, config)
    assert train(stage, config, tmp_path / "transformer") == 6


def test_held_out_photos_are_measured(tmp_path):
    """The measures are of the photos that were held out, not of the training photos."""
    config = replace(tiny.TRAIN, continuous_steps=0)
    train_photos, held_out = tiny.photos(4), tiny.photos(24)
    model = tiny.tokenizer()
    stage = TokenizerStage(model, train_photos, held_out, config)
    with_own = TokenizerStage(model, held_out, None, config).metrics(model)
    assert stage.metrics(model) == with_own
    assert stage.metrics(model) != TokenizerStage(model, train_photos, None, config).metrics(model)


@pytest.mark.parametrize("slack", [0, 1, 4])
def test_crops_stay_inside(slack):
    corners = crop_corners(slack)
    assert corners[0] == (slack // 2, slack // 2)
    assert all(0 <= top <= slack and 0 <= left <= slack for top, left in corners)
    assert len(corners) == (1 if slack == 0 else 5)


def test_tokens_are_those_of_crops_and_mirror_images():
    tokenizer, photos = tiny.tokenizer(), tiny.photos(5)
    data = extract_tokens(tokenizer, photos, crops=2)
    assert data.tokens.shape == (5, 4, 16) and data.tokens.dtype == torch.int64
    assert torch.equal(data.labels, photos.labels) and data.classes == photos.classes
    pixels = torch.from_numpy(photos.pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    for view, (top, left) in enumerate(crop_corners(1)[:2]):
        crop = pixels[:, :, top : top + 16, left : left + 16]
        for flip, images in enumerate((crop, crop.flip(-1))):
            wanted = tokenizer.encode_to_tokens(images).flatten(1)
            assert (data.tokens[:, 2 * view + flip] == wanted).float().mean() > 0.99


def test_tokens_are_extracted_once(tmp_path):
    tokenizer, photos, batches = tiny.tokenizer(), tiny.photos(5), []

    def extract(tokenizer, photos, crops=1) -> TokenData:
        def progress(parts):
            batches.extend(parts)
            return parts

        cache = tmp_path / "tokens.safetensors"
        return extract_tokens(tokenizer, photos, crops=crops, cache=cache, progress=progress)

    first = extract(tokenizer, photos)
    assert len(batches) == 1
    assert torch.equal(extract(tokenizer, photos).tokens, first.tokens)
    assert len(batches) == 1
    # Another tokenizer, other crops, and one pixel of one photo: each is noticed.
    extract(tiny.tokenizer(1), photos)
    assert len(batches) == 2
    extract(tokenizer, photos, crops=2)
    assert len(batches) == 3
    pixels = photos.pixels.copy()
    pixels[3, 0, 0, 0] ^= 1
    extract(tokenizer, Photos(pixels, photos.labels, photos.classes, []), crops=2)
    assert len(batches) == 4


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_token_cache_is_made_again(tmp_path, share):
    cache = tmp_path / "tokens.safetensors"
    first = extract_tokens(tiny.tokenizer(), tiny.photos(5), cache=cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[: int(share * len(whole))])
    again = extract_tokens(tiny.tokenizer(), tiny.photos(5), cache=cache)
    assert torch.equal(again.tokens, first.tokens)
    assert cache.read_bytes() == whole


def seen_by_the_network(config: TrainConfig, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step of the second stage feeds to the network."""
    stage = plain_transformer_stage(config)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    stage.model.register_forward_pre_hook(lambda module, args: seen.append(args))
    stage.loss(step)
    return seen[0]


def test_classes_are_dropped_at_the_given_share():
    none = len(tiny.CLASSES)
    for share in (0.0, 1.0):
        _, labels = seen_by_the_network(replace(tiny.TRAIN, class_drop=share), 0)
        assert bool((labels == none).all()) == (share == 1.0)
        assert bool((labels == none).any()) == (share == 1.0)
    config = replace(tiny.TRAIN, class_drop=0.1, batch_size=2000)
    _, labels = seen_by_the_network(config, 0)
    assert (labels == none).float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_dropped_tokens_are_hidden_beyond_the_mask():
    tokens, _ = seen_by_the_network(replace(tiny.TRAIN, batch_size=200), 3)
    more, _ = seen_by_the_network(replace(tiny.TRAIN, batch_size=200, token_drop=0.5), 3)
    masked, both = tokens == 32, more == 32
    assert bool((both | ~masked).all())
    assert both[~masked].float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_each_image_is_masked_at_its_own_ratio():
    tokens, _ = seen_by_the_network(replace(tiny.TRAIN, batch_size=64), 0)
    hidden = (tokens == 32).sum(1)
    assert len(hidden.unique()) > 8 and hidden.min() >= 1


def test_codes_that_look_alike_start_alike():
    codebook = torch.randn(64, 8)
    codebook[1] = codebook[0] + 0.01
    table = token_geometry(codebook, 16, torch.Generator().manual_seed(0))
    assert table.shape == (64, 16)
    assert table.std().item() == pytest.approx(0.02, rel=0.05)
    near = (table[0] - table[1]).norm()
    assert near < 0.1 * torch.cdist(table[:1], table[2:]).min()
