"""Both stages: logs, rates, masks, tokens, and a codebook that stays in use."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import tiny
from maskgit_core import TransformerTrainConfig
from maskgit_core.data.photos import step_generator
from maskgit_core.data.shards import TokenData, extract_tokens
from maskgit_core.losses import PerceptualLoss
from maskgit_core.training.codebook import kmeans, revive_dead_codes_
from maskgit_core.training.loop import rate_factor, train, update_ema_
from maskgit_core.training.sampled_tokens import SampledTokens
from maskgit_core.training.tokenizer_stage import TokenizerStage
from maskgit_core.training.transformer_stage import TransformerStage, token_geometry
from maskgit_core.weights.checkpoint import load_checkpoint
from runs import (
    METRICS,
    STATE,
    WEIGHTS,
    assert_same_tensors,
    lines,
    plain_transformer_stage,
    tokenizer_stage,
    transformer_stage,
)


def test_the_log_and_the_sheets(tmp_path):
    config = replace(tiny.FIRST, log_every=2)
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
    train(transformer_stage(tiny.SECOND), tiny.SECOND, tmp_path)
    last = lines(tmp_path)[-1]
    assert {"loss", "accuracy", "val_cross_entropy", "val_accuracy"} <= set(last)
    loaded = load_checkpoint(tmp_path / WEIGHTS)
    assert loaded.classes == tiny.CLASSES
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert_same_tensors(dict(loaded.transformer.state_dict()), dict(state["ema"]))
    assert_same_tensors(dict(loaded.tokenizer.state_dict()), dict(tiny.tokenizer().state_dict()))
    assert Image.open(tmp_path / "sheet-0000012.png").size == (4 * 18 - 2, 3 * 18 - 2)


def test_rates_warm_up_and_fall():
    config = replace(tiny.FIRST, max_steps=100, warmup_steps=10, min_rate=0.1)
    factors = [rate_factor(step, config) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert all(left > right for left, right in itertools.pairwise(factors[10:]))
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
    latents = torch.randn(50, 4, generator=step_generator(0, 1))
    dead = revive_dead_codes_((first, second), latents, counts, step_generator(0, 0))
    assert dead.tolist() == [3, 20]
    alive = torch.ones(32, dtype=torch.bool)
    alive[dead] = False
    for quantizer, old in zip((first, second), before, strict=True):
        assert torch.equal(quantizer.codebook[alive], old[alive])
        assert torch.equal(quantizer.codebook[dead], first.codebook[dead])
        for code in quantizer.codebook[dead]:
            assert (code == latents).all(1).any()  # a copy, not something near


def test_the_optimizer_forgets_a_revived_code():
    stage = tokenizer_stage(replace(tiny.FIRST, continuous_steps=0, max_steps=100, revive_every=1))
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
        tiny.FIRST,
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
    config = replace(tiny.FIRST, max_steps=8, continuous_steps=2, revive_every=1, sample_every=4)
    train(tokenizer_stage(config), config, tmp_path)
    assert [line["step"] for line in lines(tmp_path) if "val_psnr" in line] == [4, 8]


def test_a_run_that_stops_before_quantisation_exports_codes_that_fit(tmp_path):
    config = replace(tiny.FIRST, continuous_steps=50)
    stage = tokenizer_stage(config)
    train(stage, config, tmp_path)
    exported = load_checkpoint(tmp_path / WEIGHTS).tokenizer
    ema = tiny.tokenizer()
    ema.load_state_dict(torch.load(tmp_path / STATE, weights_only=True)["ema"])
    with torch.no_grad():
        fitted, unfitted = (
            network(tiny.images(16))[1].commit_loss.item() for network in (exported, ema)
        )
    assert fitted < 0.5 * unfitted
    # The run itself goes on as it would have without the export.
    saved = torch.load(tmp_path / STATE, weights_only=True)["model"]["quantizer.codebook"]
    assert torch.equal(saved, tiny.tokenizer().quantizer.codebook)


def test_fewer_photos_than_a_batch(tmp_path):
    photos = tiny.photos(1)
    config = replace(tiny.FIRST, max_steps=6)
    stage = TokenizerStage(tiny.tokenizer().train(), photos, None, config)
    assert train(stage, config, tmp_path / "tokenizer") == 6
    data = extract_tokens(stage.model, photos)
    data = TokenData(data.tokens, data.labels, list(tiny.CLASSES))
    config = replace(tiny.SECOND, max_steps=6)
    stage = TransformerStage(tiny.transformer().train(), stage.model, data, None, config)
    assert train(stage, config, tmp_path / "transformer") == 6


def test_held_out_photos_are_measured(tmp_path):
    """The measures are of the photos that were held out, not of the training photos."""
    config = replace(tiny.FIRST, continuous_steps=0)
    train_photos, held_out = tiny.photos(4), tiny.photos(24)
    model = tiny.tokenizer()
    stage = TokenizerStage(model, train_photos, held_out, config)
    with_own = TokenizerStage(model, held_out, None, config).metrics(model)
    assert stage.metrics(model) == with_own
    assert stage.metrics(model) != TokenizerStage(model, train_photos, None, config).metrics(model)


def seen_by_the_network(
    config: TransformerTrainConfig, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a step of the second stage feeds to the network."""
    stage = plain_transformer_stage(config)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    stage.model.register_forward_pre_hook(lambda module, args: seen.append(args))
    stage.loss(step)
    return seen[0]


def test_classes_are_dropped_at_the_given_share():
    none = len(tiny.CLASSES)
    for share in (0.0, 1.0):
        _, labels = seen_by_the_network(replace(tiny.SECOND, label_drop_prob=share), 0)
        assert bool((labels == none).all()) == (share == 1.0)
        assert bool((labels == none).any()) == (share == 1.0)
    config = replace(tiny.SECOND, label_drop_prob=0.1, batch_size=2000)
    _, labels = seen_by_the_network(config, 0)
    assert (labels == none).float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_dropped_tokens_are_hidden_beyond_the_mask():
    tokens, _ = seen_by_the_network(replace(tiny.SECOND, batch_size=200), 3)
    more, _ = seen_by_the_network(replace(tiny.SECOND, batch_size=200, token_drop=0.5), 3)
    masked, both = tokens == 32, more == 32
    assert bool((both | ~masked).all())
    assert both[~masked].float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_each_image_is_masked_at_its_own_ratio():
    tokens, _ = seen_by_the_network(replace(tiny.SECOND, batch_size=64), 0)
    hidden = (tokens == 32).sum(1)
    assert len(hidden.unique()) > 8 and hidden.min() >= 1


def test_codes_that_look_alike_start_alike():
    codebook = torch.randn(64, 8, generator=step_generator(0, 0))
    codebook[1] = codebook[0] + 0.01
    table = token_geometry(codebook, 16, torch.Generator().manual_seed(0))
    assert table.shape == (64, 16)
    assert table.std().item() == pytest.approx(0.02, rel=0.05)
    near = (table[0] - table[1]).norm()
    assert near < 0.1 * torch.cdist(table[:1], table[2:]).min()


class Maps(PerceptualLoss):
    """Stands for the feature network: maps of two depths."""

    def __init__(self, blocks: tuple[int, ...]) -> None:
        torch.nn.Module.__init__(self)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images, images[:, :, ::2, ::2]]


def test_the_feature_network_sees_the_same_window_of_both_images_enlarged(monkeypatch):
    seen = []

    class Pixels(PerceptualLoss):
        def __init__(self, blocks: tuple[int, ...]) -> None:
            torch.nn.Module.__init__(self)
            self.blocks = blocks

        def features(self, images: torch.Tensor) -> list[torch.Tensor]:
            seen.append((self.blocks, images))
            return [images]

    monkeypatch.setattr("maskgit_core.training.image_losses.PerceptualLoss", Pixels)
    config = replace(tiny.FIRST, perceptual_weight=1.0, perceptual_scale=2.0)
    stage = TokenizerStage(tiny.tokenizer().train(), tiny.photos(), None, config)
    rows = torch.arange(16.0).expand(2, 3, 16, 16)
    first = [stage.losses.seen(step, rows, rows + 100) for step in range(8)]
    for window, shifted in first:
        assert window.shape == (2, 3, 24, 24)  # 12 of 16 pixels, twice as large
        assert torch.allclose(window + 100, shifted, atol=1e-4)
    assert len({window[0, 0, 0, 12].item() for window, _ in first}) > 1
    assert torch.equal(first[3][0], stage.losses.seen(3, rows)[0])
    stage.loss(5)[0].backward()
    assert [blocks[-1] for blocks, _ in seen] == [15, 15]
    assert [images.shape[-1] for _, images in seen] == [24, 24]


def test_a_discriminator_of_features_has_a_say_in_what_the_decoder_makes(monkeypatch):
    monkeypatch.setattr("maskgit_core.training.image_losses.PerceptualLoss", Maps)
    config = replace(
        tiny.FIRST, perceptual_weight=1.0, continuous_steps=0, discriminator="features"
    )
    gradients = []
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        model = tiny.tokenizer().train()
        stage = TokenizerStage(
            model, tiny.photos(), None, replace(config, adversarial_weight=weight)
        )
        loss, measures = stage.loss(0)
        loss.backward()
        gradients.append(model.decoder.head.weight.grad.clone())
        assert ("adversarial" in measures) is (weight > 0)
        before = (
            copy.deepcopy(stage.losses.adversarial.discriminator.state_dict()) if weight else {}
        )
        stage.after_step(0, tiny.tokenizer(), torch.optim.SGD(model.parameters()))
    assert not torch.allclose(*gradients)
    moved = stage.losses.adversarial.discriminator.state_dict()
    assert len(stage.losses.adversarial.discriminator.heads) == 1
    assert any(not torch.equal(before[name], moved[name]) for name in before)


def test_sampled_tokens_reach_the_discriminator_and_no_other_loss():
    config = replace(
        tiny.FIRST,
        continuous_steps=0,
        freeze_codes=True,
        adversarial_weight=0.5,
        sampled_images=3,
    )
    sampled = torch.randint(32, (6, 4, 4), generator=torch.Generator().manual_seed(0))
    measures = []
    pool_of = SampledTokens(sampled, torch.tensor([1, 0, 1, 0, 1, 0]))
    for pool in (pool_of, None):
        torch.manual_seed(0)
        model = tiny.tokenizer().train()
        stage = TokenizerStage(model, tiny.photos(), None, config, sampled=pool)
        measures.append(stage.loss(0)[1])
        photos, made, *_ = stage.pairs[0]
        (images,) = made.views
        assert len(photos.labels) == 4
        assert len(images) == len(made.labels) == (4 if pool is None else 7)
        assert torch.equal(made.labels[:4], photos.labels)
        stage.after_step(0, tiny.tokenizer(), torch.optim.SGD(model.parameters()))
        if pool is not None:
            grids = model.decode_tokens(pool.tokens)
            near = [torch.allclose(images[-1], grid, atol=1e-5) for grid in grids]
            assert made.labels[-1] in pool.labels[torch.tensor(near)]
    assert torch.allclose(measures[0]["l1"], measures[1]["l1"])
    assert not torch.allclose(measures[0]["adversarial"], measures[1]["adversarial"])


@pytest.mark.parametrize("discriminator", ["patches", "features"])
@pytest.mark.parametrize("sampled", [0, 3])
def test_a_batch_in_pieces_learns_what_a_whole_one_does(
    monkeypatch, tmp_path, discriminator, sampled
):
    """With a discriminator too: the balance of both losses is that of the batch."""
    monkeypatch.setattr("maskgit_core.training.image_losses.PerceptualLoss", Maps)
    config = replace(
        tiny.FIRST,
        batch_size=5,
        max_steps=6,
        continuous_steps=0 if sampled else 2,
        freeze_codes=sampled > 0,
        sampled_images=sampled,
        perceptual_weight=0.5,
        adversarial_weight=0.8,
        adversarial_start=1,
        discriminator=discriminator,
    )
    grids = torch.randint(32, (6, 4, 4), generator=torch.Generator().manual_seed(0))
    pool = SampledTokens(grids, torch.arange(6) % 2) if sampled else None
    courses, networks = [], []
    for pieces in (1, 2, 5):
        some = replace(config, grad_accum_steps=pieces)
        torch.manual_seed(0)
        stage = TokenizerStage(tiny.tokenizer().train(), tiny.photos(), None, some, sampled=pool)
        train(stage, some, tmp_path / str(pieces))
        courses.append([line["loss"] for line in lines(tmp_path / str(pieces))])
        networks.append([stage.model.decoder.head.weight, stage.losses.adversarial.discriminator])
    for course, (head, judge) in zip(courses[1:], networks[1:], strict=True):
        assert course == pytest.approx(courses[0], rel=2e-3, abs=2e-3)
        torch.testing.assert_close(head, networks[0][0], rtol=0, atol=2e-3)
        for ours, whole in zip(judge.parameters(), networks[0][1].parameters(), strict=True):
            torch.testing.assert_close(ours, whole, rtol=0, atol=5e-3)


@pytest.mark.parametrize("fit_codes", [True, False])
def test_codes_of_a_given_tokenizer_are_kept_where_asked(fit_codes):
    config = replace(tiny.FIRST, continuous_steps=0)
    model = tiny.tokenizer().train()
    before = model.quantizer.codebook.detach().clone()
    stage = TokenizerStage(model, tiny.photos(), None, config, fit_codes=fit_codes)
    stage.before_step(0, tiny.tokenizer())
    assert torch.equal(model.quantizer.codebook, before) is not fit_codes
