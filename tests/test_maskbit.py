"""MaskBit: the original's numbers, networks of any shape, and its tokens as cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from demo.presets import usual_values
from demo.runs.frames import request_head
from demo.runs.generate import parse_generate
from demo.serving.steps import decode_alone
from maskgit_core import CheckpointError, MaskGIT, SamplingConfig
from maskgit_core.converters import convert_checkpoint, convert_tokenizer, convert_transformer
from maskgit_core.decoding.groups import TokenGroups
from maskgit_core.devices.prepack import pack
from maskgit_core.networks.maskbit import MaskBitConfig, MaskBitTransformer
from maskgit_core.networks.tokenizer import BitQuantizer
from maskgit_core.networks.vqgan import VQGAN, VQGANConfig
from maskgit_core.weights.checkpoint import Checkpoint
from maskgit_core.weights.families.maskbit import MASKBIT, groups_of
from maskgit_core.weights.families.sampling import maskbit_sampling
from parity_files import PARITY, TOLERANCE, tensors

GENERATOR = PARITY / "maskbit-generator" / "maskbit_generator_6bit.bin"
TOKENIZER = PARITY / "maskbit-tokenizer" / "maskbit_tokenizer_6bit.bin"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MaskGIT:
    folder = tmp_path_factory.mktemp("maskbit")
    convert_checkpoint(TOKENIZER, GENERATOR, folder, num_heads=4)
    return MaskGIT.from_pretrained(folder)


@pytest.mark.parametrize("file", [GENERATOR, GENERATOR.with_name("pytorch_model.bin")])
@torch.no_grad()
def test_logits_are_the_originals_under_both_names_of_the_first_layer(file):
    network = convert_transformer(file, num_heads=4)
    given, wanted = tensors("maskbit-generator", "inputs"), tensors("maskbit-generator", "expected")
    labels = torch.where(given["drop_label"], network.null_label, given["labels"])
    before = labels.clone()
    logits = network(given["tokens"], labels)
    assert logits.dtype == torch.float32 and not network.training
    torch.testing.assert_close(logits, wanted["logits"], **TOLERANCE)
    assert torch.equal(network.bits_of(given["tokens"]), wanted["bits"])
    assert torch.equal(labels, before)
    on_a_grid = network(given["tokens"].unflatten(1, (8, 8)), labels)
    flat = network(given["tokens"].flatten(1), labels)
    assert torch.equal(on_a_grid, logits) and torch.equal(flat, logits.flatten(1, 2))
    groups = TokenGroups(2, 8)
    assert torch.equal(groups.split(given["ids"]), wanted["split_ids"])
    assert torch.equal(groups.join(wanted["split_ids"]), given["ids"])


@torch.no_grad()
def test_ids_and_images_are_the_originals():
    network = convert_tokenizer(TOKENIZER)
    given, wanted = tensors("maskbit-tokenizer", "inputs"), tensors("maskbit-tokenizer", "expected")
    image = given["image"] * 2 - 1
    ids = network.encode_to_tokens(image)
    assert ids.dtype == torch.int64 and torch.equal(ids, wanted["ids"])
    torch.testing.assert_close(network.encode(image), wanted["prequant"], **TOLERANCE)
    for tokens, name in ((ids, "reconstruction"), (given["given_ids"], "decoded_given_ids")):
        decoded = (network.decode_tokens(tokens) + 1) / 2
        torch.testing.assert_close(decoded, wanted[name], **TOLERANCE)
    assert torch.equal(network.quantizer.nearest(given["latent"]), wanted["latent_ids"])
    assert torch.equal(network.quantizer.lookup(wanted["latent_ids"]), wanted["latent_quantised"])


SHAPES = {
    "one group": MaskBitConfig(4, 1, 3, 4, 16, 2, 2, 24),
    "two groups": MaskBitConfig(6, 2, 3, 4, 16, 2, 2, 24),
    "three groups": MaskBitConfig(6, 3, 3, 4, 16, 1, 2, 24),
    "a bit each": MaskBitConfig(3, 3, 3, 4, 16, 2, 2, 24),
}


def random_network(config: MaskBitConfig) -> MaskBitTransformer:
    torch.manual_seed(0)
    network = MaskBitTransformer(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def random_model(config: MaskBitConfig) -> MaskGIT:
    torch.manual_seed(1)
    shape = VQGANConfig(
        style="bits",
        image_size=4 * config.grid_size,
        stem_width=32,
        widths=(32, 32, 32),
        num_blocks=1,
        attention_levels=(),
        latent_dim=config.bits,
        codebook_size=config.codebook_size,
        codebook_dim=config.bits,
    )
    tokenizer = VQGAN(shape).eval().requires_grad_(False)
    return MaskGIT(Checkpoint(tokenizer, random_network(config), list(tiny.CLASSES)))


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_logits_of_any_positions_are_those_of_all(name):
    config = SHAPES[name]
    network, generator = random_network(config), torch.Generator().manual_seed(0)
    tokens = torch.randint(config.group_size + 1, (3, 16 * config.groups), generator=generator)
    labels = torch.tensor([0, 3, 2])
    whole = network(tokens, labels)
    cells = torch.rand(tokens.shape, generator=generator) < 0.4
    for form in (network, pack(network)):
        hidden = form.hidden_at(tokens, form.condition(labels), cells)
        logits = form.logits_of(hidden, cells.nonzero()[:, 1])
        torch.testing.assert_close(logits, whole[cells], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("order", ["confidence", "halton", "random", "raster"])
def test_steps_show_cells_and_reveal_each_once(name, order):
    model = random_model(SHAPES[name])
    mask = model.mask_token_id
    assert mask == SHAPES[name].codebook_size and model.tokens_per_cell == SHAPES[name].groups
    known = torch.full((2, 4, 4), mask)
    known[0, 1, :3] = torch.arange(3)
    config = SamplingConfig(num_steps=7, order=order, guidance_scale=2.0)
    left = known == mask
    for state in model.decode_tokens_steps(known, [0, None], config, seed=4):
        assert state.tokens.shape == (2, 4, 4) and state.tokens.dtype == torch.int64
        assert not (state.newly_revealed & ~left).any()
        left = left & ~state.newly_revealed
        assert torch.equal(state.tokens == mask, left)
        assert torch.equal(state.confidence.isnan(), left)
        assert (state.confidence[~left] <= 0).all()
        assert torch.equal(state.tokens[known != mask], known[known != mask])
        still = left | (known != mask)
        assert (state.alternative_ids[still] == mask).all()
        assert (state.alternative_probs[still] == 0).all()
        best = state.alternative_probs[~still]
        assert (best[:, :-1] >= best[:, 1:]).all() and (best.sum(-1) <= 1.0001).all()
        if state.partly_known is not None:
            assert not (state.partly_known & ~left).any()
    assert not left.any() and int(state.tokens.max()) < mask
    alone = model.decode_tokens_steps(known[1:], [None], config, seed=5)
    *_, last = alone
    assert torch.equal(last.tokens[0], state.tokens[1])


def test_a_cell_is_partly_known_for_a_while(model):
    states = list(model.generate_steps([0], SamplingConfig(num_steps=8), seed=1))
    assert any(state.partly_known.any() for state in states[:-1])
    assert not states[-1].partly_known.any()


def test_the_facade_generates_and_repaints(model):
    assert (model.image_size, model.grid_size, model.codebook_size) == (32, 8, 64)
    images = tensors("maskbit-tokenizer", "inputs")["image"] * 2 - 1
    ids = model.encode(images)
    assert torch.equal(ids, tensors("maskbit-tokenizer", "expected")["ids"])
    assert model.decode(ids).shape == images.shape
    result = model.generate([1, None], SamplingConfig(num_steps=4), seed=2)
    assert result.tokens.shape == (2, 8, 8) and int(result.tokens.max()) < 64
    photo, mask = tiny.picture(1, (40, 36)), tiny.left_half((40, 36))
    edited = model.inpaint(photo, mask, label=3, config=SamplingConfig(num_steps=4), seed=2)
    assert np.array_equal(np.asarray(edited.image)[~mask], np.asarray(photo)[~mask])
    assert not np.array_equal(np.asarray(edited.image)[mask], np.asarray(photo)[mask])


def test_conversion_takes_the_authors_settings_by_bits(model):
    assert model.sampling == maskbit_sampling(6).usual == maskbit_sampling(10).usual
    assert MASKBIT.sampling(MaskBitConfig(14)).usual.guidance_scale == pytest.approx(8.1)
    assert MASKBIT.sampling(MaskBitConfig(14)).presets["Best"].num_steps == 256


def test_groups_follow_from_the_shapes_or_the_file_is_refused():
    shapes = {"prediction_layer.weight": (12, 8), "bits_to_indices": (2,)}
    assert groups_of(shapes, 6) == 3
    assert groups_of({**shapes, "bits_to_indices": (1,)}, 6) == 6
    for wrong in ({"prediction_layer.weight": (12, 8)}, {**shapes, "bits_to_indices": (3,)}):
        with pytest.raises(CheckpointError, match="divisions of 6 bits into groups"):
            groups_of(wrong, 6)


def test_wrong_files_are_refused(tmp_path):
    content = torch.load(GENERATOR, weights_only=True)
    with pytest.raises(ValueError, match="num_heads must be given for a transformer of width 64"):
        convert_transformer(GENERATOR)
    with pytest.raises(ValueError, match="num_classes must be 10"):
        convert_transformer(GENERATOR, num_heads=4, num_classes=9)
    both = {**content, "input_proj.weight": content["token_emb.weight"].clone()}
    torch.save(both, tmp_path / "both.bin")
    with pytest.raises(CheckpointError, match=r"input_proj\.weight twice"):
        convert_transformer(tmp_path / "both.bin", num_heads=4)
    torch.save({**content, "norm_after_transformer.weight": torch.ones(64)}, tmp_path / "pre.bin")
    with pytest.raises(CheckpointError, match="1 unexpected: norm_after_transformer.weight"):
        convert_transformer(tmp_path / "pre.bin", num_heads=4)
    with pytest.raises(CheckpointError, match="holds a tokenizer"):
        convert_transformer(TOKENIZER)
    with pytest.raises(CheckpointError, match="codebook_dim 8, the weights have 6"):
        convert_tokenizer(TOKENIZER, config={"model": {"vq_model": {"token_size": 8}}})
    said = {"model": {"vq_model": {"token_size": 6, "codebook_size": 4096}}}
    assert convert_tokenizer(TOKENIZER, config=said).config.codebook_size == 64


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_bits_and_groups_are_the_same_number(group_bits, count, seed):
    groups, bits = TokenGroups(count, 2**group_bits), group_bits * count
    ids = torch.randint(
        2 ** min(bits, 24), (2, 3, 3), generator=torch.Generator().manual_seed(seed)
    )
    ids[0, 0, 0] = groups.num_ids
    assert torch.equal(groups.join(groups.split(ids)), ids)
    assert (groups.split(ids)[0, 0, 0] == groups.size).all()
    if bits <= 24:
        quantizer = BitQuantizer(bits)
        assert torch.equal(quantizer.nearest(quantizer.lookup(ids[1:])), ids[1:])


def test_the_page_plans_and_shows_the_steps_of_all_tokens(model):
    for cells in (64, 3):
        request = parse_generate(model, ["class 1"], 1, 5, {**usual_values(model), "num_steps": 40})
        tokens = request.tokens.clone()
        tokens.view(-1)[: 64 - cells] = 7
        request = replace(request, tokens=tokens)
        wanted = min(40, 2 * cells)
        head = request_head(request)
        assert (head["num_steps"], request.num_steps) == (wanted, (wanted,))
        steps = [item for item in decode_alone(model)(request) if hasattr(item, "state")]
        assert len(steps) == wanted and steps[-1].last
        shown = sum(step.state.newly_revealed.sum() for step in steps)
        assert shown == cells and head["plan"][0] == pytest.approx(cells / 64, abs=1e-3)
