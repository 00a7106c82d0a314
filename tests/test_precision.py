"""bfloat16 and int8 as options, and freed memory that a process keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from commands import ROOT
from maskgit_core import MaskGIT, SamplingConfig
from maskgit_core.devices import precision
from maskgit_core.devices.precision import (
    Int8Linear,
    bfloat16_pays,
    bfloat16_works,
    int8_works,
)
from maskgit_core.devices.prepack import pack, packing_works
from maskgit_core.networks.layers import attend
from maskgit_core.training.loop import train
from maskgit_core.weights.checkpoint import Checkpoint
from runs import lines, transformer_stage

needs_int8 = pytest.mark.skipif(not int8_works(), reason="this processor has no int8 products")
LOSSY = [
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(
            not (packing_works() and bfloat16_works()), reason="no packed weights in bfloat16 here"
        ),
    ),
    pytest.param("int8", marks=needs_int8),
]


def model_of(precision: str, **changes) -> MaskGIT:
    checkpoint = Checkpoint(tiny.tokenizer(), tiny.transformer(**changes), list(tiny.CLASSES))
    return MaskGIT(checkpoint, precision=precision)


@pytest.mark.parametrize("precision", LOSSY)
@pytest.mark.parametrize("kind", ["class_token", "adaln"])
@torch.no_grad()
def test_rounded_products_are_close_to_float32(kind, precision):
    network = tiny.transformer(kind=kind)
    tokens, labels = torch.arange(32).view(2, 16), torch.tensor([0, 1])
    exact = network(tokens, labels)
    rounded = pack(network, precision)(tokens, labels)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("precision", LOSSY)
def test_a_rounded_model_decodes_and_repeats_itself(precision):
    model, config = model_of(precision), SamplingConfig(num_steps=4)
    result = model.generate(["sea", None], config, seed=1)
    assert result.images.dtype == torch.float32 and int(result.tokens.max()) < 32
    assert torch.equal(result.tokens, model.generate(["sea", None], config, seed=1).tokens)


@needs_int8
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 9),
    scale=st.floats(1e-6, 1e6),
    seed=st.integers(0, 100),
)
@torch.no_grad()
def test_int8_rounds_each_row_by_itself(rows, inputs, outputs, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(outputs, inputs, generator=generator), torch.zeros(outputs)
    x = torch.randn(rows, 2, inputs, generator=generator) * scale
    layer = Int8Linear(weight, bias)
    result = layer(x)
    exact = F.linear(x, weight)
    # Half a level on either factor, summed over the inputs.
    level = (x.abs().amax(-1, keepdim=True) * weight.abs().amax(-1)) / 127
    assert ((result - exact).abs() <= level * (1.02 * inputs) + 1e-30).all()
    assert torch.equal(layer(x[:1]), result[:1])


@needs_int8
@torch.no_grad()
def test_int8_keeps_zeros_bias_and_gelu():
    weight, bias = torch.eye(3), torch.tensor([0.5, -1.0, 2.0])
    assert torch.equal(Int8Linear(weight, bias)(torch.zeros(2, 3)), bias.expand(2, 3))
    assert torch.equal(Int8Linear(torch.zeros(3, 3), bias)(torch.ones(1, 3))[0], bias)
    assert torch.equal(
        Int8Linear(weight, bias, gelu="tanh")(torch.zeros(1, 3))[0],
        F.gelu(bias, approximate="tanh"),
    )


@needs_int8
def test_int8_leaves_what_it_is_given_as_it_is():
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(*shape, generator=generator) for shape in ((4, 6), (4,), (2, 6)))
    before = [given.clone() for given in (x, bias)]
    x = x.requires_grad_()  # as from parameters, outside of no_grad
    layer = Int8Linear(weight, bias, gelu="none")
    result = layer(x)
    assert not result.requires_grad
    assert all(map(torch.equal, before, (x, layer.bias)))
    exact = F.gelu(F.linear(x, weight, bias))
    assert (result - exact).abs().max() < 0.1


def test_float32_is_the_default_and_other_words_are_refused():
    assert tiny.model().precision == "float32"
    with pytest.raises(
        ValueError, match="^precision must be one of float32, bfloat16, int8; got 'half'"
    ):
        model_of("half")


@pytest.mark.parametrize(("name", "other"), [("int8", "bfloat16"), ("bfloat16", "int8")])
def test_a_precision_is_refused_where_the_processor_has_none(monkeypatch, name, other):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, f"{name}_works", lambda: False)
    monkeypatch.setattr(precision, f"{other}_works", lambda: True)
    with pytest.raises(ValueError, match=f"^precision must be float32 or {other} on this proc"):
        model_of(name)
    monkeypatch.setattr(precision, f"{other}_works", lambda: False)
    with pytest.raises(ValueError, match=f"^precision must be float32 on this .* got '{name}'"):
        model_of(name)
    assert model_of("float32").precision == "float32"


AS_ON_AVX2 = """
from maskgit_core.devices.precision import bfloat16_works, check_precision
from maskgit_core.devices.prepack import pack
import torch, tiny
assert not bfloat16_works() and not torch.cuda.is_available()
network = tiny.transformer()
assert pack(network, "bfloat16") is network
try:
    check_precision("bfloat16")
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(not bfloat16_works(), reason="this processor has no bfloat16 at all")
def test_a_processor_with_avx2_alone_refuses_bfloat16_in_one_sentence():
    result = subprocess.run(
        [sys.executable, "-c", AS_ON_AVX2],
        env={
            **os.environ,
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith("precision must be float32"), result.stderr
    assert "no products in bfloat16; got 'bfloat16'" in result.stdout


@pytest.mark.parametrize(("instructions", "pays"), [({"avx512_bf16": True}, True), ({}, False)])
def test_bfloat16_pays_where_the_processor_has_products_in_it(monkeypatch, instructions, pays):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **instructions})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert bfloat16_pays("cpu") is pays


def test_training_in_bfloat16_where_the_processor_has_it(tmp_path, monkeypatch):
    config = replace(tiny.SECOND, max_steps=2, precision="bfloat16")
    if bfloat16_pays("cpu"):
        train(transformer_stage(config), config, tmp_path / "bfloat16")
        exact = replace(config, precision="float32")
        train(transformer_stage(exact), exact, tmp_path / "float32")
        losses = [[line["loss"] for line in lines(tmp_path / n)] for n in ("bfloat16", "float32")]
        assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)
    monkeypatch.setattr("maskgit_core.training.loop.bfloat16_pays", lambda device: False)
    with pytest.raises(ValueError, match="precision must be auto or float32"):
        train(transformer_stage(config), config, tmp_path / "refused")


def test_attention_is_in_float32_under_autocast_on_a_cpu():
    q, k, v = torch.randn(3, 2, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = attend(q, k, v)
        half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert torch.equal(mixed, attend(q, k, v))
    assert half.dtype == torch.float32 and (half - mixed).abs().max() < 0.05
