"""Weights by name: known published ones, and checkpoints of ours on the Hugging Face Hub.

Published files are fetched, checked and converted once; the result is kept in the folder `maskgit`
beside the Hub's cache and from then on loads without a connection. The files themselves, most of
whose bytes are an optimizer's state, are removed then unless they were there before.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from maskgit_core.files import CheckpointError
from maskgit_core.hub_client import REPO_ID, check_repo, hub_client, is_out_of_room, uploading
from maskgit_core.weights.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    TRANSFORMER_FILE,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from maskgit_core.weights.download import (
    CONVERTED,
    converted_root,
    drop_downloads,
    file_of_ours,
    keep_downloads,
    published_file,
)
from maskgit_core.weights.known import KNOWN_WEIGHTS
from maskgit_core.weights.progress import CONVERTING, Progress
from maskgit_core.weights.published import KnownWeights
from maskgit_core.weights.shipped import SHIPPED_NAME, shipped_folder

__all__ = ["KNOWN_WEIGHTS", "KnownWeights", "fetch_weights", "push_to_hub", "resolve_checkpoint"]


def resolve_checkpoint(source: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
    """Return the checkpoint folder that a source names, fetching it where necessary.

    Args:
        source: a folder, a key of `KNOWN_WEIGHTS`, or owner/name of a Hub repository in our form.
            "checkpoints/scenes-flowers", which ships, is found from every working directory.
        progress: counts what is fetched, and may cancel.

    Raises:
        CheckpointError: there is no such folder or name (the nearest known one is given), or the
            download fails; see `fetch_weights`.
    """
    name = os.fspath(source)
    if not name:
        raise CheckpointError("the name of the checkpoint is empty")
    try:
        folder = Path(source).expanduser()
        if folder.is_dir():
            return folder
        if folder == Path(SHIPPED_NAME) and shipped_folder().is_dir():
            return shipped_folder()
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"there is no checkpoint folder {name[:80]!r}: {error}") from error
    owner = Path(name.partition("/")[0])
    # A path whose first folder exists here is a mistyped path, not a repository.
    if name in KNOWN_WEIGHTS or (REPO_ID.fullmatch(name) and not owner.is_dir()):
        return fetch_weights(name, progress=progress)
    if isinstance(source, os.PathLike) or "/" in name or os.sep in name:
        raise CheckpointError(f"there is no checkpoint folder {source}")
    raise CheckpointError(unknown_name(name))


def unknown_name(name: str) -> str:
    """Return the message for a name that is not known."""
    near = difflib.get_close_matches(name.lower(), KNOWN_WEIGHTS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there are no weights named {name!r}; {hint}known names: {', '.join(KNOWN_WEIGHTS)}"


def fetch_weights(
    name: str, *, revision: str | None = None, progress: Progress | None = None
) -> Path:
    """Return a folder with the weights of a name, downloaded and converted on first use.

    Args:
        name: a key of `KNOWN_WEIGHTS`, or owner/name of a Hub repository that holds a checkpoint
            of ours.
        revision: branch, tag or commit of such a repository; its main branch by default.
        progress: counts what is fetched, and may cancel.

    Returns:
        A checkpoint folder, to be read and not to be changed.

    Raises:
        ValueError: a revision was given for known weights, whose revision is fixed.
        CheckpointError: an unknown name; no connection, or offline, and nothing in the cache; an
            answer of the Hub that says no; a file of another hash or form; no room on the disk.
    """
    if name in KNOWN_WEIGHTS:
        if revision is not None:
            raise ValueError(f"revision must be left out for {name}, whose files are fixed")
        return fetch_known(KNOWN_WEIGHTS[name], progress or Progress())
    if not REPO_ID.fullmatch(name):
        raise CheckpointError(unknown_name(name))
    return fetch_repository(name, revision, progress or Progress())


def converted_folder(known: KnownWeights) -> Path:
    """Return where the converted weights of a known name are kept, whether or not they are."""
    return converted_root() / f"{known.name}-{known.key}"


def is_converted(known: KnownWeights) -> bool:
    """Return whether a known name loads without a connection."""
    return (converted_folder(known) / CONFIG_FILE).is_file()


def fetch_known(known: KnownWeights, progress: Progress) -> Path:
    """Return the converted weights, made on first use; see `fetch_weights`."""
    target = converted_folder(known)
    if is_converted(known):
        return target
    with one_at_a_time(known.name):
        if not is_converted(known):  # while this one waited
            with raw_files(known, progress) as (tokenizer, transformer):
                convert_into(target, tokenizer, transformer, known)
    return target


@contextlib.contextmanager
def raw_files(
    known: KnownWeights, progress: Progress, *, keep: bool = False
) -> Iterator[tuple[Path, Path]]:
    """Fetch tokenizer and transformer, and remove what was fetched when they are converted.

    Files that turn out to be of no use are removed too. They stay where another try needs them:
    after an interruption, and when the disk was full.
    """
    for file in known.files:
        progress.expect(file.path, file.size)
    tokenizer, transformer = (published_file(known, file, progress) for file in known.files)
    progress.enter(CONVERTING)
    try:
        yield tokenizer, transformer
    except CheckpointError as error:
        if not is_out_of_room(error):
            drop_downloads(known)
        raise
    if keep:
        keep_downloads(known)
    drop_downloads(known)


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Let one process fetch a name at a time, as far as the file system has locks."""
    from filelock import FileLock  # the Hub's client brings it

    lock = Path(hub_client().constants.HF_HUB_CACHE) / ".locks" / f"{CONVERTED}--{name}.lock"
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(lock))
        except (OSError, NotImplementedError):
            pass  # without, two processes would only do the same work twice
        yield


def convert_into(target: Path, tokenizer: Path, transformer: Path, known: KnownWeights) -> None:
    """Convert into a folder beside the target and move it there when it is complete."""
    from maskgit_core.weights.convert import convert_checkpoint

    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        convert_checkpoint(tokenizer, transformer, temporary, sampling=known.sampling)
        if target.is_dir() and not (target / CONFIG_FILE).is_file():
            shutil.rmtree(target)
        temporary.rename(target)
    except OSError as error:
        # Another process may have been faster; its result is the same.
        if not (target / CONFIG_FILE).is_file():
            raise CheckpointError(f"cannot keep {known.name} in {target}: {error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def fetch_repository(repo: str, revision: str | None, progress: Progress) -> Path:
    """Download a checkpoint of ours from the Hub; see `fetch_weights`."""
    config_path = file_of_ours(repo, CONFIG_FILE, revision or "main", progress)
    folder = config_path.parent
    config = read_config(folder)
    # The folder of a downloaded file is named after its commit: all files come from that one.
    commit = folder.name
    file_of_ours(repo, TOKENIZER_FILE, commit, progress)
    if "transformer" in config:
        file_of_ours(repo, TRANSFORMER_FILE, commit, progress)
    return folder


def convert_named(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    keep_download: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write a known name's weights, or another checkpoint of ours, into a folder of one's own.

    Args:
        source: as in `resolve_checkpoint`.
        folder: made where it does not exist.
        dtype: of the stored weights, float32 or float16.
        keep_download: whether the published files stay where they were fetched to.
        progress: counts, and may cancel.

    Raises:
        ValueError, CheckpointError: as in `resolve_checkpoint` and `save_checkpoint`.
    """
    from maskgit_core.weights.convert import convert_checkpoint

    name = os.fspath(source)
    known = None if Path(name).expanduser().is_dir() else KNOWN_WEIGHTS.get(name)
    if known is None or is_converted(known):
        loaded = load_checkpoint(resolve_checkpoint(source, progress=progress))
        save_checkpoint(
            folder,
            tokenizer=loaded.tokenizer,
            transformer=loaded.transformer,
            classes=loaded.classes,
            sampling=loaded.sampling,
            presets=loaded.presets,
            dtype=dtype,
        )
        return
    with (
        one_at_a_time(known.name),
        raw_files(known, progress or Progress(), keep=keep_download) as files,
    ):
        convert_checkpoint(*files, folder, sampling=known.sampling, dtype=dtype)


def push_to_hub(
    folder: str | os.PathLike[str], repo: str, *, private: bool = False, message: str | None = None
) -> str:
    """Upload a checkpoint folder to the Hub, so that `fetch_weights(repo)` finds it.

    Args:
        folder: a checkpoint of ours.
        repo: owner/name; made where it does not exist.
        private: whether a new repository is private.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: repo is not owner/name.
        CheckpointError: the folder is no checkpoint, or the Hub does not take it.
    """
    check_repo(repo)
    folder = Path(folder)
    config = read_config(folder)
    names = [CONFIG_FILE, TOKENIZER_FILE, *([TRANSFORMER_FILE] if "transformer" in config else [])]
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"{name} is missing in {folder}")
    with uploading(repo) as client:
        api = client.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=names,
            commit_message=message or "Upload a MaskGIT checkpoint",
        )
    return str(commit.commit_url)
