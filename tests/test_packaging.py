"""The project as a package: a wheel that works alone, pins that agree, one version."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from commands import ROOT
from maskgit_core.weights.checkpoint import CheckpointError
from maskgit_core.weights.hub import resolve_checkpoint
from maskgit_core.weights.shipped import SHIPPED_NAME, shipped_folder

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
USE_OF_THE_WHEEL = f"""
import app, demo.tabs.widgets as widgets, maskgit_core
from maskgit_core.cli.main import main
assert maskgit_core.__file__.startswith({{site!r}}) and app.__file__.startswith({{site!r}})
assert any(widgets.ASSETS.glob("*.js"))
assert main(["info", "--checkpoint", {SHIPPED_NAME!r}]) == 0
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what a wheel of the project installs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_brings_code_page_and_checkpoint(site: Path) -> None:
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for folder in ("maskgit_core", "demo")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    checkpoint = {f"maskgit_core/{SHIPPED_NAME}/{path.name}" for path in shipped_folder().iterdir()}
    beside = {name for name in names if ".dist-info/" in name}
    assert names - beside == tracked | checkpoint | {"app.py"}
    assert {"maskgit_core/py.typed", "demo/py.typed"} <= names


def test_wheel_works_alone_in_any_folder(site: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(site)!r})" + USE_OF_THE_WHEEL.format(
        site=str(site)
    )
    command = [sys.executable, "-P", "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "image size: 96" in result.stdout


def test_commands_name_functions_that_exist(site: Path) -> None:
    (entries,) = site.glob("*.dist-info/entry_points.txt")
    assert "maskgit = maskgit_core.__main__:run" in entries.read_text(encoding="utf-8")
    for target in PROJECT["scripts"].values():
        module, function = target.split(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_shipped_checkpoint_is_found_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint(SHIPPED_NAME) == shipped_folder()
    with pytest.raises(CheckpointError):
        resolve_checkpoint(SHIPPED_NAME + "-xl")
    (tmp_path / SHIPPED_NAME).mkdir(parents=True)  # a folder of the user's comes first
    assert resolve_checkpoint(SHIPPED_NAME) == Path(SHIPPED_NAME)


def pins(name: str) -> dict[str, Version]:
    """The exact versions in a requirements file, by package and its extras."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return {
        name.lower(): Version(version)
        for name, version in re.findall(r"^([\w.\[\]-]+)==([\w.]+)", text, re.MULTILINE)
    }


def test_pins_are_of_the_dependencies_and_within_their_ranges() -> None:
    pinned = pins("requirements.txt")
    ranges = {item.name: item for item in map(Requirement, PROJECT["dependencies"])}
    assert set(pinned) == set(ranges)
    for name, requirement in ranges.items():
        assert pinned[name] in requirement.specifier, name
        assert any(part.operator == "<" for part in requirement.specifier), name


def test_extras_are_pinned_for_the_tests_where_the_tests_use_them() -> None:
    pinned = pins("requirements.txt") | pins("requirements-dev.txt")
    for extra in ("loadtest", "mcp", "perceptual"):
        for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
            extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
            assert pinned[requirement.name + extras] in requirement.specifier


def test_version_is_the_newest_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = [Version(text) for text in re.findall(r"^## (\d\S*)", changelog, re.MULTILINE)]
    assert versions and versions == sorted(versions, reverse=True)
    assert versions[0] == Version(PROJECT["version"])
