"""Imports run one way: what each package may import, and what none of the core may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import ROOT

# What everybody may import.
BASE = {
    "checks": "",
    "class_names": "",
    "files": "",
    "pixels": "",
    "hub_client": "files",
    "orders": "checks",
    "schedules": "checks",
    "config": "checks orders schedules",
}
# Each may import the base and what stands behind it, all of which stands above it, so that there is
# no circle. A module of the core's own folder counts as a package; the names of `maskgit_core`
# itself are for its callers.
MAY_IMPORT = {
    "losses": "",
    "recipes": "",
    "inputs": "recipes",
    "results": "",
    "networks": "",
    "distributed": "",
    "decoding": "",
    "devices": "networks decoding",
    "weights": "networks",
    "converters": "weights",
    "data": "distributed",
    "editing": "data",
    "pipeline": "inputs results recipes decoding devices weights editing",
    "evaluation": "losses data",
    "training": "losses recipes networks distributed decoding devices weights data pipeline "
    "evaluation",
    "maskgit_core": "pipeline training",
    "benchmark": "networks devices weights data pipeline training",
    "cli": "inputs recipes networks distributed devices weights data editing pipeline "
    "evaluation training benchmark",
    "demo.environment": "",
    "demo.settings": "inputs",
    "demo.messages": "demo.settings",
    "demo.presets": "demo.settings",
    "demo.hardening": "",
    "demo.serving": "maskgit_core inputs decoding devices weights editing demo.environment "
    "demo.settings demo.hardening",
    "demo.runs": "data editing training recipes demo.settings demo.presets demo.hardening "
    "demo.serving",
    "demo.tabs": "weights demo.settings demo.presets demo.messages demo.serving demo.runs",
    "demo.api": "data editing demo.settings demo.presets demo.serving demo.runs",
    "demo.launch": "demo.hardening demo.tabs demo.api",
    "demo.startup": "",
    "demo.ui": "maskgit_core demo.presets demo.messages demo.serving demo.runs "
    "demo.tabs demo.api demo.launch",
    "demo.tools": "weights cli demo.settings",
    "app": "maskgit_core cli weights devices demo.environment demo.startup demo.serving demo.runs "
    "demo.launch demo.ui",
}
OF_THE_PAGE = {
    "gradio",
    "gradio_client",
    "starlette",
    "fastapi",
    "uvicorn",
    "spaces",
    "demo",
    "app",
}
FILES = [ROOT / "app.py", *sorted((ROOT / "maskgit_core").rglob("*.py"))]
FILES += sorted((ROOT / "demo").rglob("*.py"))


def package(module: str) -> str:
    """The row of the table that a module of this project belongs to."""
    top, *rest = module.split(".")
    if top == "demo":
        return ".".join(["demo", *rest[:1]])
    return rest[0] if top == "maskgit_core" and rest else top


def name_of(path: Path) -> str:
    """Full name of a module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Full name of each thing that a file imports, wherever in it, and the name's last part."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: write the whole name of the module"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                place = ROOT / full.replace(".", "/")
                is_module = place.is_dir() or place.with_suffix(".py").is_file()
                yield (full, "") if is_module else (node.module, alias.name)


def test_table_has_no_circle_and_no_package_that_is_gone() -> None:
    above: set[str] = set()
    for name, may in {**BASE, **MAY_IMPORT}.items():
        assert set(may.split()) <= above, f"{name} imports what stands below it"
        above.add(name)
    assert {package(name_of(path)) for path in FILES} == above | {"demo", "__main__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    module, own = name_of(path), package(name_of(path))
    for full, name in imports(path):
        if full.split(".")[0] not in ("maskgit_core", "demo", "app"):
            in_core = module.startswith("maskgit_core")
            assert not (in_core and full.split(".")[0] in OF_THE_PAGE), f"{module} imports {full}"
            continue
        other = package(full)
        if other == own or module == "maskgit_core.__main__":
            continue
        allowed = BASE[own].split() if own in BASE else [*BASE, *MAY_IMPORT.get(own, "").split()]
        assert other in allowed, f"{module} imports {full}"
        assert not name.startswith("_"), f"{module} imports {name}, which {full} keeps to itself"
