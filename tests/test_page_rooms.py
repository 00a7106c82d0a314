"""The rooms of the page: who may import whom, and how long a file and a function may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "app.py", *sorted((ROOT / "demo").rglob("*.py"))]
# Each package, and what of the page it may import.
MAY_IMPORT = {
    "hardening": {"hardening"},
    "serving": {"serving", "hardening", "settings", "environment"},
    "runs": {"runs", "serving", "hardening", "settings"},
    "tabs": {"tabs", "runs", "serving", "hardening", "settings", "messages"},
    "settings": set(),
    "messages": {"settings"},
    "environment": set(),
}


def imported(file: Path) -> Iterator[str]:
    """Modules of the page that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("demo."))


def room(file: Path) -> str:
    return file.relative_to(ROOT / "demo").parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    files = [file for file in FILES if file.is_relative_to(ROOT / "demo") and room(file) == package]
    assert files
    for file in files:
        for name in imported(file):
            assert name.split(".")[1] in MAY_IMPORT[package], (file.name, name)


def test_nothing_imports_the_owners_tools() -> None:
    for file in FILES:
        if not file.is_relative_to(ROOT / "demo" / "tools"):
            assert not any(name.startswith("demo.tools") for name in imported(file)), file


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text("utf-8")
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name
