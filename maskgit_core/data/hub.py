"""Photos from a dataset on the Hugging Face Hub: a repository with one folder of pictures a class.

Only pictures are fetched, once, into the Hub's cache; `HF_HUB_OFFLINE` takes what is there. The
package `datasets` is not needed: such a repository is already the folder that training reads.
"""

from __future__ import annotations

from pathlib import Path

from maskgit_core.data.photos import IMAGE_SUFFIXES
from maskgit_core.hub_client import REPO_ID, explain, hub_client

PREFIX = "hub:"


def is_dataset_name(source: str) -> bool:
    """Whether a source of photos is on the Hub."""
    return source.startswith(PREFIX)


def fetch_dataset(source: str) -> Path:
    """Return the folder of a dataset's pictures, to be read and not to be changed.

    Args:
        source: `hub:owner/name`, or `hub:owner/name@revision` for a branch, tag or commit.

    Raises:
        ValueError: another form, or a repository without pictures.
        CheckpointError: no connection and nothing (or not all) in the cache, an answer of the Hub
            that says no, or no room on the disk.
    """
    repo, _, revision = source.removeprefix(PREFIX).partition("@")
    if not REPO_ID.fullmatch(repo):
        raise ValueError(f"data must be a folder or {PREFIX}owner/name; got {source!r}")
    client = hub_client()
    try:
        folder = Path(
            client.snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision or None,
                allow_patterns=[_pattern(suffix) for suffix in IMAGE_SUFFIXES],
            )
        )
    except Exception as error:  # the client passes on errors of the network and of the disk
        raise explain(error, repo, "pictures", revision or "main") from error
    if not folder.is_dir() or not any(
        p.suffix.lower() in IMAGE_SUFFIXES for p in folder.rglob("*")
    ):
        raise ValueError(
            f"data must hold pictures; the dataset {repo} has no files of the kinds "
            f"{', '.join(IMAGE_SUFFIXES)} (tables and archives are not read)"
        )
    return folder


def _pattern(suffix: str) -> str:
    """Return the pattern of a suffix in small and in capital letters."""
    return "*." + "".join(f"[{letter}{letter.upper()}]" for letter in suffix[1:])
