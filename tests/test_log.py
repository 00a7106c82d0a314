"""TensorBoard's files are written where the package is installed, and not missed where not."""

from __future__ import annotations

import sys
import types
from typing import ClassVar

from maskgit_core.training.log import open_writer

from commands import train_tokenizer  # isort: skip


class FakeWriter:
    made: ClassVar[list[FakeWriter]] = []

    def __init__(self, log_dir: str) -> None:
        self.log_dir, self.scalars, self.images, self.closed = log_dir, [], [], False
        FakeWriter.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_image(self, name, pixels, step, dataformats):
        assert dataformats == "HWC" and pixels.ndim == 3
        self.images.append(step)

    def close(self):
        self.closed = True


def test_measures_and_sheets_go_to_the_writer(monkeypatch, photo_folder, tmp_path):
    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = FakeWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    FakeWriter.made.clear()
    assert train_tokenizer(photo_folder, tmp_path) == 0
    (writer,) = FakeWriter.made
    assert writer.log_dir == str(tmp_path / "tensorboard") and writer.closed
    assert [step for name, _, step in writer.scalars if name == "loss"] == list(range(1, 7))
    assert "val_psnr" in {name for name, _, _ in writer.scalars}
    assert writer.images == [3, 6]


def test_without_the_package_there_is_no_writer(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert open_writer(tmp_path) is None
    assert not list(tmp_path.iterdir())
