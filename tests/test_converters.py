"""Published weights: the same numbers as the originals, on reduced-size files of every family."""

import io
import json
import os
import pickle
import re
import sys
import types
import zipfile
from pathlib import Path

import msgpack
import pytest
import torch
from safetensors.torch import load_file, save_file

from maskgit_core.checkpoint import CheckpointError, load_checkpoint
from maskgit_core.converters import (
    build_tokenizer,
    build_transformer,
    convert_checkpoint,
    convert_pair,
    convert_tokenizer,
    convert_transformer,
)
from maskgit_core.formats import WeightFile, find_tensors, read_weights

PARITY = Path(__file__).parent / "fixtures" / "parity"
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
TRANSFORMERS = {
    "maskgit-v1": ("weights.pth", 4),
    "halton": ("weights.pth", 4),
    "halton-proj2": ("weights.pth", 3),
    "google-generator": ("weights.msgpack", None),
}
TOKENIZERS = {
    "taming-vqgan": "weights.ckpt",
    "llamagen-vq": "weights.pt",
    "maskgit-vqgan": "pytorch_model.bin",
    "google-tokenizer": "weights.msgpack",
}
UNIT_RANGE = ("maskgit-vqgan", "google-tokenizer")


def tensors(family: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(PARITY / family / f"{name}.safetensors")


@pytest.mark.filterwarnings("ignore:taking 10 of 58 rows")
@pytest.mark.parametrize("family", TRANSFORMERS)
def test_logits_are_the_originals(family):
    file, heads = TRANSFORMERS[family]
    facts = json.loads((PARITY / family / "fixture.json").read_text())["machine_readable"]
    network = convert_transformer(PARITY / family / file, num_heads=heads)
    given = tensors(family, "inputs")
    labels = given["labels"].long()
    if "drop_label" in given:
        labels = torch.where(given["drop_label"], network.null_label, labels)
    tokens = given["tokens"].long()
    with torch.no_grad():
        logits = network(tokens, labels)
        flat = network(tokens.flatten(1), labels)
    wanted = tensors(family, "expected")["logits"][..., : facts["codebook_size"]]
    assert logits.dtype == torch.float32
    assert not network.training
    torch.testing.assert_close(logits, wanted, **TOLERANCE)
    assert torch.equal(logits, flat)


@pytest.mark.parametrize("family", TOKENIZERS)
def test_tokens_and_images_are_the_originals(family):
    network = convert_tokenizer(PARITY / family / TOKENIZERS[family])
    given, wanted = tensors(family, "inputs"), tensors(family, "expected")
    image = given["images" if family == "google-tokenizer" else "image"]
    image = image * 2 - 1 if family in UNIT_RANGE else image

    def inside(images):
        return (images + 1) / 2 if family in UNIT_RANGE else images

    with torch.no_grad():
        tokens = network.encode_to_tokens(image)
        decoded = inside(network.decode_tokens(wanted["ids"].long()))
        torch.testing.assert_close(decoded, wanted["reconstruction"], **TOLERANCE)
        if "given_ids" in given:
            decoded = inside(network.decode_tokens(given["given_ids"].long()))
            torch.testing.assert_close(decoded, wanted["decoded_given_ids"], **TOLERANCE)
        if "prequant" in wanted:
            torch.testing.assert_close(network.encode(image), wanted["prequant"], **TOLERANCE)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, wanted["ids"].long())
    assert not network.training


def published() -> list[tuple[str, str, dict[str, list[int]], dict]]:
    """Return (family, file, name -> shape, hyper-parameters) of every published file."""
    found = []
    for path in sorted(PARITY.glob("*/published.json")):
        content = json.loads(path.read_text())
        for file, entry in content.get("checkpoints", content).items():
            found.append(
                (
                    path.parent.name,
                    file,
                    entry.get("tensors", entry),
                    entry.get("hyper_parameters", {}),
                )
            )
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("family", "file", "shapes", "facts"), published(), ids=lambda v: v if type(v) is str else ""
)
def test_every_published_name_is_used(family, file, shapes, facts):
    shapes = {name.removeprefix("params/"): shape for name, shape in shapes.items()}
    weights = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    build = build_transformer if family in TRANSFORMERS else build_tokenizer
    network = build(WeightFile(file, weights))
    config = network.config
    for theirs, ours in (
        ("grid", "grid_size"),
        ("depth", "depth"),
        ("heads", "num_heads"),
        ("nclass", "num_classes"),
        ("codebook_size", "codebook_size"),
        ("n_embed", "codebook_size"),
        ("num_embeddings", "codebook_size"),
        ("codebook_embed_dim", "codebook_dim"),
        ("l2_norm", "l2_normalize"),
        ("num_res_blocks", "num_blocks"),
    ):
        if theirs in facts:
            assert getattr(config, ours) == facts[theirs], theirs
    # Shared and ignored tensors apart, no number is lost on the way.
    lost = {"head.weight", "quantize.codebook_used"}
    count = sum(weight.numel() for name, weight in weights.items() if name not in lost)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def resave(path: Path, family: str, change) -> Path:
    """Write a copy of a fixture whose flat tensors went through change(tensors)."""
    file = (TRANSFORMERS.get(family) or (TOKENIZERS.get(family),))[0]
    tensors = dict(read_weights(PARITY / family / file).tensors)
    change(tensors)
    torch.save({"model_state_dict": tensors}, path)
    return path


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_wrapper_prefixes_are_removed_wherever_they_are(tmp_path, prefix):
    def add(tensors):
        for name in list(tensors):
            head, _, tail = name.partition(".")
            tensors[f"{prefix}{head}.module.{tail}" if tail else prefix + head] = tensors.pop(name)

    network = convert_transformer(resave(tmp_path / "x", "halton", add), num_heads=4)
    same = convert_transformer(PARITY / "halton" / "weights.pth", num_heads=4)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])


def test_format_does_not_follow_from_the_file_name(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_bytes((PARITY / "google-generator" / "weights.msgpack").read_bytes())
    assert convert_transformer(target, num_classes=10).config.depth == 3
    flat = read_weights(PARITY / "llamagen-vq" / "weights.pt").tensors
    save_file({name: tensor.contiguous() for name, tensor in flat.items()}, target)
    assert convert_tokenizer(target).config.l2_normalize
    torch.save({"step": 3, "ema": flat, "model": {"other": torch.zeros(1)}}, target)
    assert convert_tokenizer(target).config.l2_normalize
    torch.save(flat, target, _use_new_zipfile_serialization=False)
    assert convert_tokenizer(target).config.l2_normalize


def test_networks_do_not_share_memory_with_the_file(tmp_path):
    path = resave(tmp_path / "weights", "maskgit-v1", lambda tensors: None)
    network = convert_transformer(path, num_heads=4, num_classes=10)
    before = network.embedding.weight.clone()
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(network.embedding.weight, before)


def test_heads_are_asked_for_where_the_width_is_unpublished():
    path = PARITY / "halton" / "weights.pth"
    with pytest.raises(ValueError, match="num_heads must be given.*width 64"):
        convert_transformer(path)
    with pytest.raises(ValueError, match="num_heads must split width 64 .* got 5"):
        convert_transformer(path, num_heads=5)
    with pytest.raises(ValueError, match="num_heads must be .* between 1 and 64; got 65"):
        convert_transformer(path, num_heads=65)
    generator = PARITY / "google-generator" / "weights.msgpack"
    with pytest.raises(ValueError, match="num_heads must be 4 .* got 8"):
        convert_transformer(generator, num_heads=8)


def test_classes_of_a_shared_table(tmp_path):
    generator = PARITY / "google-generator" / "weights.msgpack"
    with pytest.warns(UserWarning, match="taking 10 of 58 rows as classes"):
        assert convert_transformer(generator).config.codebook_size == 48
    assert convert_transformer(generator, num_classes=8).config.codebook_size == 50
    with pytest.raises(ValueError, match="num_classes must be .* between 1 and 56; got 57"):
        convert_transformer(generator, num_classes=57)
    with pytest.raises(ValueError, match="num_classes must be 10 .* got 11"):
        convert_transformer(PARITY / "halton" / "weights.pth", num_heads=4, num_classes=11)
    # The optimizer's state tells: the loss never moves the bias of a class.
    assert (
        convert_transformer(PARITY / "maskgit-v1" / "weights.pth", num_heads=4).config.codebook_size
        == 48
    )

    def zero(tensors):
        tensors["bias"][:, 41:] = 0

    trained = convert_transformer(resave(tmp_path / "x", "maskgit-v1", zero), num_heads=4)
    assert (trained.config.codebook_size, trained.config.num_classes) == (40, 18)


def test_leftovers_are_listed_in_the_names_of_the_file(tmp_path):
    def spoil(tensors):
        del tensors["transformer.layers.1.attn.wk.weight"]
        tensors["transformer.layers.0.ff.w2.weight"] = torch.zeros(3, 3)
        tensors["text_proj.weight"] = torch.zeros(1)

    with pytest.raises(CheckpointError) as caught:
        convert_transformer(resave(tmp_path / "x", "halton", spoil), num_heads=4)
    assert "1 missing: transformer.layers.1.attn.wk.weight" in str(caught.value)
    assert "1 unexpected: text_proj.weight" in str(caught.value)
    assert "1 misshapen: transformer.layers.0.ff.w2.weight is (3, 3)" in str(caught.value)


@pytest.mark.parametrize("family", [*TRANSFORMERS, *TOKENIZERS])
def test_every_single_tensor_is_needed(family, tmp_path):
    file = (TRANSFORMERS.get(family) or (TOKENIZERS.get(family),))[0]
    heads = TRANSFORMERS.get(family, (None, None))[1]
    content = read_weights(PARITY / family / file)
    classes = None if family.startswith("halton") else 10
    optional = ("loss.", "head.weight", "quantize.codebook_used")
    names = [name for name in content.tensors if not name.startswith(optional)]
    for name in names[:: 1 + len(names) // 50]:
        rest = {key: value for key, value in content.tensors.items() if key != name}
        weights = {key: torch.empty(value.shape, device="meta") for key, value in rest.items()}
        with pytest.raises(CheckpointError):
            if family in TRANSFORMERS:
                build_transformer(WeightFile(file, weights), num_heads=heads, num_classes=classes)
            else:
                build_tokenizer(WeightFile(file, weights))


def test_an_untied_output_layer_is_refused(tmp_path):
    def untie(tensors):
        tensors["head.weight"] = tensors["head.weight"] + 1

    with pytest.raises(CheckpointError, match="output layer that differs"):
        convert_transformer(resave(tmp_path / "x", "halton", untie), num_heads=4)


def test_a_part_given_for_the_other_is_named():
    with pytest.raises(CheckpointError, match="holds a tokenizer .LlamaGen.*transformer is wanted"):
        convert_transformer(PARITY / "llamagen-vq" / "weights.pt")
    with pytest.raises(CheckpointError, match="holds a transformer .v1.0.*tokenizer is wanted"):
        convert_tokenizer(PARITY / "maskgit-v1" / "weights.pth")
    with pytest.raises(CheckpointError, match="holds a transformer .original.*tokenizer"):
        convert_tokenizer(PARITY / "google-generator" / "weights.msgpack")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!doctype html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"GIF89a", "of an unknown format"),
        (pickle.dumps({"a": 1}), "damaged or cut short|not read"),
        (msgpack.packb({"a": 1}), "holds no weights"),
        (b"\x82\xc1", "damaged or cut short"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        convert_transformer(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read .*No such file"):
        convert_tokenizer(tmp_path / "missing.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        convert_tokenizer(tmp_path)
    path = tmp_path / "foreign.pt"
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, path)
    with pytest.raises(CheckpointError, match="no known family .*fc.weight"):
        convert_tokenizer(path)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("family", ["halton", "google-generator", "taming-vqgan"])
def test_truncated_files(tmp_path, family, share):
    file = TRANSFORMERS[family][0] if family in TRANSFORMERS else TOKENIZERS[family]
    content = (PARITY / family / file).read_bytes()
    path = tmp_path / file
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        (convert_transformer if family in TRANSFORMERS else convert_tokenizer)(path)


class Runs:
    """Pickles as a call of a function with one argument."""

    def __init__(self, function, argument):
        self.call = (function, (argument,))

    def __reduce__(self):
        return self.call


def make_folder(path):
    Path(path).mkdir()


@pytest.mark.parametrize("function", [os.mkdir, make_folder, eval, exec, __import__])
@pytest.mark.parametrize("whole", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, function, whole):
    marker = tmp_path / "ran"
    by_path = function in (os.mkdir, make_folder)
    argument = str(marker) if by_path else f"__import__('os').mkdir({str(marker)!r})"
    evil = Runs(function, argument)
    path = tmp_path / "weights.ckpt"
    weights = read_weights(PARITY / "taming-vqgan" / "weights.ckpt").tensors
    torch.save(evil if whole else {"state_dict": weights, "callbacks": evil}, path)
    with pytest.raises(CheckpointError, match="tries to run code"):
        convert_tokenizer(path)
    path.write_bytes(pickle.dumps(evil, protocol=2))
    with pytest.raises(CheckpointError, match="could run code"):
        convert_tokenizer(path)
    assert not marker.exists()


def lightning_file(path: Path, monkeypatch) -> None:
    """Write the taming fixture with objects of a module that is gone when the file is read."""
    module = types.ModuleType("some_trainer.callbacks")
    source = """
class State(dict):
    pass
class Callback:
    def __init__(self): self.best = 3.5
    def __setstate__(self, state): raise RuntimeError("must not run")
"""
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "some_trainer", types.ModuleType("some_trainer"))
    monkeypatch.setitem(sys.modules, "some_trainer.callbacks", module)
    weights = read_weights(PARITY / "taming-vqgan" / "weights.ckpt").tensors
    content = {
        "callbacks": {module.Callback: {"best": module.Callback()}},
        "hyper_parameters": module.State(rate=1e-4, path=Path("a/b")),
        "state_dict": {
            name: torch.nn.Parameter(weight) if weight.is_floating_point() else weight
            for name, weight in weights.items()
        },
        "optimizer_states": [torch.zeros(3)],
    }
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, "some_trainer.callbacks")
    monkeypatch.delitem(sys.modules, "some_trainer")


def test_foreign_classes_become_placeholders(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    lightning_file(path, monkeypatch)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    network = convert_tokenizer(path)
    same = convert_tokenizer(PARITY / "taming-vqgan" / "weights.ckpt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert "some_trainer" not in sys.modules


def test_a_damaged_archive_with_foreign_classes(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    lightning_file(path, monkeypatch)
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.namelist():
            if not re.search(r"/data/3$", entry):
                target.writestr(entry, source.read(entry))
    path.write_bytes(copy.getvalue())
    with pytest.raises(CheckpointError):
        convert_tokenizer(path)


def test_configuration_of_a_tokenizer(tmp_path):
    path = PARITY / "taming-vqgan" / "weights.ckpt"
    assert convert_tokenizer(path).config.image_size == 256
    yaml = PARITY / "taming-vqgan" / "model.yaml"
    tokenizer = convert_tokenizer(path, config=yaml)
    assert (tokenizer.config.image_size, tokenizer.config.grid_size) == (32, 8)
    assert convert_tokenizer(path, config={"resolution": 64}).config.grid_size == 16
    with pytest.raises(CheckpointError, match="codebook_size 65, the weights have 64"):
        convert_tokenizer(path, config={"n_embed": 65})
    with pytest.raises(CheckpointError, match="image_size must be a multiple of 4; got 30"):
        convert_tokenizer(path, config={"resolution": 30})
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match="bad.yaml cannot be read"):
        convert_tokenizer(path, config=tmp_path / "bad.yaml")
    vqgan = PARITY / "maskgit-vqgan"
    tokenizer = convert_tokenizer(vqgan / "pytorch_model.bin", config=vqgan / "config.json")
    assert tokenizer.config.image_size == 32
    llamagen = PARITY / "llamagen-vq" / "weights.pt"
    assert not convert_tokenizer(llamagen, config={"l2_norm": False}).config.l2_normalize


@pytest.mark.parametrize("size", [(16, 48), (32, 32)])
def test_tokenizers_take_any_image_size(size):
    network = convert_tokenizer(PARITY / "taming-vqgan" / "weights.ckpt")
    with torch.no_grad():
        tokens = network.encode_to_tokens(torch.zeros(1, 3, *size))
        assert tokens.shape == (1, size[0] // 4, size[1] // 4)
        assert network.decode_tokens(tokens).shape == (1, 3, *size)


def test_a_converted_pair_comes_back_from_its_folder(tmp_path):
    parts = (PARITY / "llamagen-vq" / "weights.pt", PARITY / "halton" / "weights.pth")
    convert_checkpoint(*parts, tmp_path / "out", num_heads=4)
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.tokenizer.config.image_size == 32
    assert loaded.classes == [f"class {label}" for label in range(10)]
    assert loaded.sampling.order == "halton"
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefghij") + "\n")
    convert_checkpoint(*parts, tmp_path / "out", num_heads=4, classes_file=names)
    assert load_checkpoint(tmp_path / "out").classes == list("abcdefghij")
    names.write_text("only one\n")
    with pytest.raises(ValueError, match="classes must hold 10 names; got 1"):
        convert_checkpoint(*parts, tmp_path / "out", num_heads=4, classes_file=names)
    tokenizer, transformer = convert_pair(*parts, num_heads=4)
    for mine, theirs in ((loaded.tokenizer, tokenizer), (loaded.transformer, transformer)):
        assert mine.config == theirs.config
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name])
    with pytest.raises(CheckpointError, match="already in this project's own form"):
        convert_transformer(tmp_path / "out" / "transformer.safetensors")


def test_the_original_pair_comes_back_from_its_folder(tmp_path):
    """The post-norm generator has a kind of its own in config.json."""
    smaller = {"num_classes": 18, "num_heads": None}  # 40 codes, as many as the tokenizer
    parts = [PARITY / f"google-{part}" / "weights.msgpack" for part in ("tokenizer", "generator")]
    convert_checkpoint(*parts, tmp_path / "out", **smaller)
    loaded = load_checkpoint(tmp_path / "out")
    assert loaded.transformer.null_label is None
    assert loaded.sampling.guidance_scale == 1
    labels, tokens = torch.tensor([0, 17]), torch.full((2, 36), 40)
    assert loaded.transformer(tokens, labels).shape == (2, 36, 40)
    with pytest.raises(IndexError):
        loaded.transformer(tokens, torch.tensor([0, 18]))


def test_parts_that_do_not_belong_together():
    halton = PARITY / "halton" / "weights.pth"
    google = PARITY / "google-tokenizer" / "weights.msgpack"
    with pytest.raises(CheckpointError, match="codebook of 40, the transformer of 64"):
        convert_pair(google, halton, num_heads=4)
    taming = PARITY / "taming-vqgan" / "weights.ckpt"
    with pytest.raises(CheckpointError, match="grid of 16 tokens .* transformer has 8"):
        convert_pair(taming, halton, num_heads=4, config={"resolution": 64})


def test_msgpack_arrays_of_every_form():
    inner = msgpack.packb(((2, 2), "bfloat16", b"\x80\x3f" * 4))
    chunk = msgpack.ExtType(1, msgpack.packb(((3,), "float32", bytes(12))))
    tree = {
        "params": {
            "half": msgpack.ExtType(1, inner),
            "scalar": msgpack.ExtType(3, msgpack.packb(((), "float32", b"\0\0\x80\x3f"))),
            "big": {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 2, "1": 3},
                "chunks": {"0": chunk, "1": chunk},
            },
        }
    }
    from maskgit_core.formats import flax_value, join_chunks

    read = msgpack.unpackb(msgpack.packb(tree), ext_hook=flax_value)
    tensors = find_tensors(join_chunks(read))
    assert torch.equal(tensors["half"], torch.ones(2, 2, dtype=torch.bfloat16))
    assert tensors["scalar"].shape == () and float(tensors["scalar"]) == 1
    assert tensors["big"].shape == (2, 3)
