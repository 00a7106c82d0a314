"""What CONTRIBUTING.md and README.md tell a developer is so: example, targets, places, names."""

from __future__ import annotations

import re

import pytest
import torch

from commands import ROOT
from maskgit_core import orders

DOCUMENTS = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "README.md")
}
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_example_of_an_order_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENTS["CONTRIBUTING.md"], flags=re.DOTALL)
    with monkeypatch.context() as patch:
        patch.setattr(orders, "ORDERS", dict(orders.ORDERS))
        exec(compile(code, "CONTRIBUTING.md", "exec"), vars(orders))
        assert torch.equal(vars(orders)["column_order"]((2, 3)), torch.tensor([0, 3, 1, 4, 2, 5]))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_exist(name: str) -> None:
    told = set(re.findall(r"\bmake ([a-z][\w-]*)", DOCUMENTS[name]))
    assert told and told <= set(TARGETS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_places_exist(name: str) -> None:
    roots = (ROOT, ROOT / "maskgit_core", ROOT / "demo")
    for place in re.findall(r"`([\w./-]+/[\w./-]*|[\w/-]+\.(?:py|toml|txt|md))`", DOCUMENTS[name]):
        made = place.startswith(("runs/", "dist/", "htmlcov/"))
        assert made or any((root / place).exists() for root in roots), place
