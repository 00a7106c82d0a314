"""Which device a name means."""

from __future__ import annotations

import pytest
import torch

from maskgit_core import MaskGIT


def test_a_device_is_named_and_must_be_there(tiny_checkpoint) -> None:
    for name in ("auto", "cpu"):
        assert MaskGIT.from_pretrained(tiny_checkpoint, device=name).device.type == "cpu"
    for name in ("tpu", "", "cuda:x", 7, "meta"):
        with pytest.raises(ValueError, match="device must be"):
            MaskGIT.from_pretrained(tiny_checkpoint, device=name)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="not there"):
            MaskGIT.from_pretrained(tiny_checkpoint, device="cuda")
