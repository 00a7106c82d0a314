"""Command line of the upload to a Space."""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).parents[2]


def deploy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `deploy-space`."""
    parser.add_argument("--repo", required=True, help="owner/name of the Space, made if need be")
    parser.add_argument("--private", action="store_true", help="a new Space is private")
    parser.add_argument(
        "--dry-run", action="store_true", help="list the files and their sizes, upload nothing"
    )


def deploy(args: argparse.Namespace) -> None:
    """Run `deploy-space`."""
    from demo.tools.space import deploy_space, space_files
    from maskgit_core.weights.hub import check_repo

    check_repo(args.repo)
    if not args.dry_run:
        print(deploy_space(ROOT, args.repo, private=args.private))
        return
    files = space_files(ROOT)
    sizes = [path.stat().st_size for path in files.values()]
    for name, size in zip(files, sizes, strict=True):
        print(f"{size:>12,}  {name}")
    print(f"{sum(sizes):>12,}  bytes in {len(files)} files for {args.repo}")
