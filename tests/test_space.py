"""The page as a Space: the files it gets, what its front matter says, and the container."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml

import app
from commands import ROOT, assert_refused, run
from demo.environment import prepare_environment, private_folder
from demo.tools.deploy_space import CHECKPOINT, deploy_space, space_files
from fake_hub import running_hub
from maskgit_core.devices.precision import quick_precision
from maskgit_core.files import CheckpointError
from maskgit_core.weights.known import KNOWN_WEIGHTS

README = (ROOT / "README.md").read_text("utf-8")
FRONT = README.split("---\n")[1]


@pytest.fixture(scope="module")
def small_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without the weights, and with what has no place in a Space."""
    root = tmp_path_factory.mktemp("project")
    for name in ("maskgit_core", "demo"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("app.py", "requirements.txt", "README.md", "LICENSE", "Makefile"):
        shutil.copy(ROOT / name, root / name)
    (root / CHECKPOINT).mkdir(parents=True)
    shutil.copy(ROOT / CHECKPOINT / "config.json", root / CHECKPOINT)
    for name in ("tests/test_x.py", "demo/__pycache__/x.pyc", "demo/.secret", ".env", "runs/x.pt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not for others")
    return root


@pytest.fixture
def server(tmp_path, monkeypatch):
    with running_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield hub


def test_a_space_gets_what_the_page_needs_and_nothing_else(server, small_project) -> None:
    server.files["me/page", "old.py"] = b"from an earlier version"
    server.files["me/page", ".gitattributes"] = b"the Hub's own"
    address = deploy_space(small_project, "me/page", private=True)
    assert "me/page/commit/" in address
    (asked,) = server.created
    assert (asked["type"], asked["sdk"], asked["name"]) == ("space", "gradio", "page")
    assert asked.get("visibility") == "private" or asked.get("private") is True
    names = {name for repo, name in server.files if repo == "me/page"}
    assert names == {*space_files(small_project), ".gitattributes"}
    assert {"app.py", "demo/assets/player.js", f"{CHECKPOINT}/config.json"} <= names
    assert "maskgit_core/weights/imagenet_classes.txt" in names
    assert not [name for name in names if "secret" in name or "pycache" in name]
    assert not [name for name in names if "tests" in Path(name).parts]
    assert server.files["me/page", "app.py"] == (ROOT / "app.py").read_bytes()


def test_dry_run_lists_sizes_and_asks_nobody(server, capsys) -> None:
    assert run("deploy-space", "--repo", "me/page", "--dry-run") == 0
    *lines, total = capsys.readouterr().out.splitlines()
    listed = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines}
    assert listed == {name: path.stat().st_size for name, path in space_files(ROOT).items()}
    assert f"{CHECKPOINT}/transformer.safetensors" in listed
    assert total.split()[0] == f"{sum(listed.values()):,}"
    assert not server.requests


def test_bad_deployments_are_refused_in_one_line(server, capsys, tmp_path, small_project) -> None:
    assert_refused(capsys, "deploy-space", "--repo", "page", "--dry-run", says="owner/name")
    with pytest.raises(ValueError, match="app.py"):
        space_files(tmp_path)
    server.server.shutdown()
    server.server.server_close()
    with pytest.raises(CheckpointError, match="upload to me/page failed"):
        deploy_space(small_project, "me/page")


def test_the_page_imports_nothing_that_the_requirements_lack() -> None:
    names = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    allowed = {name.replace("-", "_") for name in names} | {"app", "demo", "maskgit_core", "PIL"}
    allowed |= {"starlette", "uvicorn"}  # parts of Gradio
    tools = ROOT / "demo" / "tools"  # for the owner, who has the other requirements too
    paths = [path for path in (ROOT / "demo").rglob("*.py") if tools not in path.parents]
    for path in [ROOT / "app.py", *paths]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            for module in modules:
                top = module.split(".")[0]
                assert top in allowed or top in sys.stdlib_module_names, (path.name, module)


def front_matter(key: str) -> str:
    return re.search(rf"^{key}: (.+)$", FRONT, flags=re.MULTILINE)[1].strip("\"'")


def test_front_matter_agrees_with_the_requirements() -> None:
    pins = dict(
        re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    )
    assert len(pins) == len((ROOT / "requirements.txt").read_text().split())  # all pinned
    assert front_matter("sdk") == "gradio"
    assert front_matter("sdk_version") == pins["gradio"]
    assert (ROOT / front_matter("app_file")).is_file()
    assert front_matter("license") == "mit"
    assert len(front_matter("short_description")) <= 60  # the Hub refuses longer ones
    wanted = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert front_matter("python_version") == wanted
    repos = {file.repo for known in KNOWN_WEIGHTS.values() for file in known.files if file.repo}
    assert set(yaml.safe_load(FRONT)["models"]) == repos


def test_environment_keeps_what_is_set_and_uses_a_space_s_storage(tmp_path) -> None:
    found: dict[str, str] = {}
    prepare_environment(found, str(tmp_path))
    assert found["GRADIO_ANALYTICS_ENABLED"] == "False" and "HF_HOME" not in found
    assert Path(found["GRADIO_TEMP_DIR"]).stat().st_mode & 0o077 == 0
    on_space = {"SPACE_ID": "me/page", "GRADIO_TEMP_DIR": "/elsewhere"}
    prepare_environment(on_space, str(tmp_path))
    assert on_space["HF_HOME"] == str(tmp_path / ".huggingface")
    assert on_space["GRADIO_TEMP_DIR"] == "/elsewhere"
    chosen = {"SPACE_ID": "me/page", "HF_HOME": "/mine"}
    prepare_environment(chosen, str(tmp_path))
    assert chosen["HF_HOME"] == "/mine"
    without = {"SPACE_ID": "me/page"}
    prepare_environment(without, str(tmp_path / "missing"))
    assert "HF_HOME" not in without


def test_a_space_takes_the_quick_precision_where_there_is_one(monkeypatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    monkeypatch.delenv("MASKGIT_PRECISION", raising=False)
    assert app.parse_arguments([]).precision == "float32"
    monkeypatch.setenv("SPACE_ID", "USER/NAME")
    assert app.parse_arguments([]).precision == "auto"
    monkeypatch.setenv("MASKGIT_PRECISION", "bfloat16")
    assert app.parse_arguments([]).precision == "bfloat16"
    for works, gpu, precision in ((1, 0, "int8"), (1, 1, "float32"), (0, 0, "float32")):
        monkeypatch.setattr(
            "maskgit_core.devices.precision.int8_works",
            lambda works=works: bool(works),
        )
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: bool(gpu))
        assert quick_precision() == precision


def test_a_folder_that_is_not_ours_is_not_used(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    usual = private_folder()
    assert usual == private_folder()
    usual.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    usual.symlink_to(tmp_path / "elsewhere")
    assert private_folder() not in (usual, tmp_path / "elsewhere")


DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def test_dockerfile_passes_the_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.is_file():
        pytest.skip("no hadolint for this kind of machine")
    done = subprocess.run(
        [linter, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_container_runs_without_privileges_and_is_watched() -> None:
    lines = [line for line in DOCKERFILE.splitlines() if line and line[0] not in "# "]
    assert [line for line in lines if line.startswith("USER ")][-1] != "USER root"
    assert lines.index("USER 1000") < next(
        index for index, line in enumerate(lines) if line.startswith("CMD ")
    )
    assert "http://127.0.0.1:7860/healthz" in DOCKERFILE
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE, flags=re.MULTILINE)
    sources = {name.rstrip("/") for line in copied for name in line.split()}
    needed = {name.split("/")[0] for name in space_files(ROOT)} - {"README.md"}
    assert sources == needed
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert {line.lstrip("!").rstrip("/") for line in ignored if line[0] == "!"} == needed
