"""Files, functions and folders that a reader can take in at once."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from commands import ROOT

LINES_OF_A_FILE = 350
LINES_OF_A_FUNCTION = 60
MODULES_OF_A_FOLDER = 15
# What is still larger, to be split; each one that no longer is must leave the list.
LARGER = {
    "maskgit_core/cli/",
    "maskgit_core/pipeline.py",
    "maskgit_core/training/",
    "maskgit_core/training/results.py write_results",
    "tests/test_cli_training.py",
    "tests/test_editing.py",
    "tests/test_train.py",
    "tests/test_training.py",
}
PRODUCT = [ROOT / "maskgit_core", ROOT / "demo"]


def too_large() -> set[str]:
    """Paths of files and folders that are too large, and of functions with their names."""
    found = set()
    for folder in (*PRODUCT, ROOT / "tests"):
        for path in (*folder.rglob("*.py"), *folder.rglob("*.*js"), ROOT / "app.py"):
            if "node_modules" in path.parts:
                continue
            text = path.read_text(encoding="utf-8")
            name = path.relative_to(ROOT).as_posix()
            if len(text.splitlines()) > LINES_OF_A_FILE:
                found.add(name)
            if path.suffix == ".py":
                found |= {f"{name} {function}" for function in long_functions(text)}
    for folder in {path.parent for root in PRODUCT for path in root.rglob("*.py")}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if len(modules) > MODULES_OF_A_FOLDER:
            found.add(f"{folder.relative_to(ROOT).as_posix()}/")
    return found


def long_functions(text: str) -> list[str]:
    """Names of the functions of a module that are too long, their docstrings counted."""
    return [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LINES_OF_A_FUNCTION
    ]


def test_nothing_is_larger_than_it_should_be() -> None:
    found = too_large()
    assert not found - LARGER, "to be split"
    assert not LARGER - found, "no longer too large: strike them off the list"


@pytest.mark.parametrize("root", PRODUCT, ids=lambda root: root.name)
def test_each_package_says_what_it_holds(root: Path) -> None:
    for folder in {path.parent for path in root.rglob("*.py")}:
        text = (folder / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{folder.relative_to(ROOT)} says nothing"
