"""What the README shows works as written, and the shipped checkpoint is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from maskgit_core import MaskGIT

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES)
def test_python_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    made = names.get("images", names.get("result"))
    assert made is not None


def test_there_are_examples_and_they_are_short() -> None:
    assert len(EXAMPLES) == 1
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("picture", re.findall(r"!\[[^]]*]\(([^)]+)\)", README))
def test_pictures_exist(picture: str) -> None:
    assert (ROOT / picture).is_file()


def test_shipped_checkpoint_is_complete_and_small() -> None:
    folder = ROOT / "checkpoints"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60e6
    model = MaskGIT.from_pretrained(folder / "scenes-flowers")
    assert len(model.classes) == 11 and model.image_size == 96 and model.grid_size == 12


def test_shipped_tokenizer_rebuilds_the_example_photos() -> None:
    from maskgit_core.data.images import crop_to_square, load_image, to_tensor
    from maskgit_core.pixels import psnr

    model = MaskGIT.from_pretrained(ROOT / "checkpoints" / "scenes-flowers")
    photos = sorted((ROOT / "demo" / "examples").glob("*.jpg"))
    images = torch.cat([to_tensor(crop_to_square(load_image(path), 96)) for path in photos])
    rebuilt = model.decode(model.encode(images))
    shuffled = model.decode(model.encode(images).flip(0))
    assert psnr(rebuilt, images).min() > 17
    assert psnr(rebuilt, images).mean() > psnr(shuffled, images).mean() + 6
