"""The page as a Hugging Face Space: which files it needs, and how they get there."""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

from maskgit_core.cli.main import Parser, run_command
from maskgit_core.hub_client import check_repo, uploading
from maskgit_core.weights.checkpoint import read_config

ROOT = Path(__file__).parents[2]
# Everything that `app.py` reads. Tests, tools and other models stay at home.
SINGLE_FILES = ("app.py", "requirements.txt", "README.md", "LICENSE")
FOLDERS = ("maskgit_core", "demo")
CHECKPOINT = "checkpoints/scenes-flowers"
LEFT_OUT = ("__pycache__", "*.pyc", ".*")


def space_files(root: Path) -> dict[str, Path]:
    """Return the files of a Space.

    Args:
        root: the project's folder.

    Returns:
        Path in the Space, with forward slashes and in order, to file.

    Raises:
        ValueError: root is not the project's folder; names what is missing.
        CheckpointError: the checkpoint that ships is not there or cannot be read.
    """
    missing = [name for name in SINGLE_FILES if not (root / name).is_file()]
    missing += [name for name in FOLDERS if not (root / name).is_dir()]
    if missing:
        raise ValueError(f"root must be the project's folder; {', '.join(missing)} missing in it")
    read_config(root / CHECKPOINT)
    found = [root / name for name in SINGLE_FILES]
    for folder in (*FOLDERS, CHECKPOINT):
        found += [path for path in (root / folder).rglob("*") if path.is_file()]
    names = {path.relative_to(root).as_posix(): path for path in found if _needed(path, root)}
    return dict(sorted(names.items()))


def _needed(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    return not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in LEFT_OUT)


def deploy_space(root: Path, repo: str, *, private: bool = False, message: str = "") -> str:
    """Upload the page in one commit; what the Space holds besides is removed.

    Args:
        root: the project's folder.
        repo: owner/name; made where it does not exist.
        private: whether a new Space is private.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: repo is not owner/name, or see `space_files`.
        CheckpointError: the Hub cannot be reached or does not take the files; or see `space_files`.
    """
    check_repo(repo)
    files = space_files(root)
    with uploading(repo) as client:
        api = client.HfApi()
        api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        there = api.list_repo_files(repo, repo_type="space")
        # The Hub keeps its own notes on large files there.
        extra = [name for name in there if name not in files and name != ".gitattributes"]
        operations = [
            *(client.CommitOperationAdd(name, str(path)) for name, path in files.items()),
            *(client.CommitOperationDelete(name) for name in extra),
        ]
        commit = api.create_commit(
            repo, operations, repo_type="space", commit_message=message or "Upload the page"
        )
    return str(commit.commit_url)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="python -m demo.tools.deploy_space",
        description="Upload the page as a Space to the Hugging Face Hub.",
    )
    parser.add_argument("--repo", required=True, help="owner/name of the Space, made if need be")
    parser.add_argument("--private", action="store_true", help="a new Space is private")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the files and their sizes, upload nothing"
    )
    parser.set_defaults(run=_run)
    return parser


def _run(args: argparse.Namespace) -> None:
    check_repo(args.repo)
    if not args.dry_run:
        print(deploy_space(ROOT, args.repo, private=args.private))
        return
    files = space_files(ROOT)
    sizes = [path.stat().st_size for path in files.values()]
    for name, size in zip(files, sizes, strict=True):
        print(f"{size:>12,}  {name}")
    print(f"{sum(sizes):>12,}  bytes in {len(files)} files for {args.repo}")


if __name__ == "__main__":
    sys.exit(run_command(build_parser(), None))
