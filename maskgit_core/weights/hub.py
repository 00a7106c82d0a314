"""Weights by name: known published ones, and checkpoints of ours on the Hugging Face Hub.

Downloads go through `huggingface_hub`: its cache, its progress bar, its token, `HF_HOME`,
`HF_ENDPOINT` and `HF_HUB_OFFLINE`. Published files are converted once; the result is kept in the
folder `maskgit` beside the Hub's cache and from then on loads without a connection.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskgit_core.weights.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    TRANSFORMER_FILE,
    CheckpointError,
    read_config,
)
from maskgit_core.weights.known import KNOWN_WEIGHTS, HubFile, KnownWeights
from maskgit_core.weights.shipped import SHIPPED_NAME, shipped_folder

__all__ = ["KNOWN_WEIGHTS", "KnownWeights", "fetch_weights", "push_to_hub", "resolve_checkpoint"]

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
FOLDER = "maskgit"


def resolve_checkpoint(source: str | os.PathLike[str]) -> Path:
    """Return the checkpoint folder that a source names, fetching it where necessary.

    Args:
        source: a folder, a key of `KNOWN_WEIGHTS`, or owner/name of a Hub repository in our form.
            "checkpoints/scenes-flowers", which ships, is found from every working directory.

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
        return fetch_weights(name)
    if isinstance(source, os.PathLike) or "/" in name or os.sep in name:
        raise CheckpointError(f"there is no checkpoint folder {source}")
    raise CheckpointError(unknown_name(name))


def unknown_name(name: str) -> str:
    """Return the message for a name that is not known."""
    near = difflib.get_close_matches(name.lower(), KNOWN_WEIGHTS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there are no weights named {name!r}; {hint}known names: {', '.join(KNOWN_WEIGHTS)}"


def fetch_weights(name: str, *, revision: str | None = None) -> Path:
    """Return a folder with the weights of a name, downloaded and converted on first use.

    Args:
        name: a key of `KNOWN_WEIGHTS`, or owner/name of a Hub repository that holds a checkpoint
            of ours.
        revision: branch, tag or commit of such a repository; its main branch by default.

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
        return fetch_known(KNOWN_WEIGHTS[name])
    if not REPO_ID.fullmatch(name):
        raise CheckpointError(unknown_name(name))
    return fetch_repository(name, revision)


def cache_folder() -> Path:
    """Return the folder of converted weights."""
    return Path(hub_client().constants.HF_HOME) / FOLDER


def hub_client() -> Any:
    """Return the module huggingface_hub.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError as error:
        raise CheckpointError("weights by name need the Python package huggingface_hub") from error
    return huggingface_hub


def converted_folder(known: KnownWeights) -> Path:
    """Return where the converted weights of a known name are kept, whether or not they are."""
    return cache_folder() / f"{known.name}-{known.key}"


def is_converted(known: KnownWeights) -> bool:
    """Return whether a known name loads without a connection."""
    return (converted_folder(known) / CONFIG_FILE).is_file()


def cached_bytes(known: KnownWeights) -> int:
    """Return the size in bytes of what the Hub's cache holds of its repositories so far.

    It grows during a download, so that a caller can tell how far that is.
    """
    cache = Path(hub_client().constants.HF_HUB_CACHE)
    total = 0
    for repo in {file.repo for file in known.files if file.repo}:
        blobs = cache / f"models--{repo.replace('/', '--')}" / "blobs"
        for blob in blobs.glob("*"):
            # A part may be renamed between the listing and the look.
            with contextlib.suppress(OSError):
                total += blob.stat().st_size
    return total


def fetch_known(known: KnownWeights) -> Path:
    """Return the converted weights, made on first use; see `fetch_weights`."""
    target = converted_folder(known)
    if is_converted(known):
        return target
    paths = [download(file) if file.repo else local_file(known, file) for file in known.files]
    convert_into(target, paths[0], paths[1], known)
    return target


def local_file(known: KnownWeights, file: HubFile) -> Path:
    """Return a file that the user has put in place.

    Raises:
        CheckpointError: it is not there; says where from and where to.
    """
    folder = cache_folder() / known.name
    path = folder / file.name
    if not path.is_file():
        names = " and ".join(file.name for file in known.files)
        raise CheckpointError(
            f"{known.name} is not on the Hub: put {names} from {known.source} into {folder}, or "
            "give them to the convert command"
        )
    return path


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
        os.rename(temporary, target)
    except OSError as error:
        # Another process may have been faster; its result is the same.
        if not (target / CONFIG_FILE).is_file():
            raise CheckpointError(f"cannot keep {known.name} in {target}: {error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def fetch_repository(repo: str, revision: str | None) -> Path:
    """Download a checkpoint of ours from the Hub; see `fetch_weights`."""
    config_path = download(HubFile(repo, CONFIG_FILE, revision or "main"))
    folder = config_path.parent
    config = read_config(folder)
    # The folder of a downloaded file is named after its commit: all files come from that one.
    commit = folder.name
    download(HubFile(repo, TOKENIZER_FILE, commit))
    if "transformer" in config:
        download(HubFile(repo, TRANSFORMER_FILE, commit))
    return folder


def download(file: HubFile) -> Path:
    """Return the path of a file in the Hub's cache, downloaded where it is not there yet.

    Raises:
        CheckpointError: see `fetch_weights`.
    """
    client = hub_client()
    try:
        path = Path(client.hf_hub_download(file.repo, file.path, revision=file.revision))
    except Exception as error:  # the client passes on errors of the network and of the disk
        raise CheckpointError(explain(error, file, client)) from error
    check_hash(path, file)
    return path


def check_hash(path: Path, file: HubFile) -> None:
    """Check the content of a downloaded file where its hash is known.

    Large files lie in the Hub's cache under their own SHA-256, which the Hub announced before the
    download; so a hash is known for them even where the record has none.

    Raises:
        CheckpointError: another hash; the file is removed, so that it is fetched anew.
    """
    stored = path.resolve()
    wanted = file.sha256 or (stored.name if SHA256.fullmatch(stored.name) else None)
    if wanted is None:
        return
    digest = hashlib.sha256()
    with stored.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    found = digest.hexdigest()
    if found != wanted:
        path.unlink(missing_ok=True)
        stored.unlink(missing_ok=True)
        raise CheckpointError(
            f"{file.name} from {file.repo} has the hash {found[:12]}, not {wanted[:12]}: it was "
            "damaged on the way or replaced; it has been removed, try again"
        )


def explain(error: Exception, file: HubFile, client: Any) -> str:
    """Return one clear sentence for what the Hub's client raised."""
    what = f"{file.name} of the Hub repository {file.repo}"
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and len(chain) < 10:
        chain.append(step)
        step = step.__cause__ or step.__context__
    kinds = {base.__name__ for link in chain for base in type(link).__mro__}
    status = next(
        (
            link.response.status_code
            for link in chain
            if getattr(link, "response", None) is not None
        ),
        None,
    )
    if "OfflineModeIsEnabled" in kinds or client.constants.HF_HUB_OFFLINE:
        return f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it"
    if any(getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for link in chain):
        return f"no room on the disk for {what}; free some and try again"
    if "GatedRepoError" in kinds or status == 403:
        return f"{what} is behind a form: accept its terms on the Hub and log in there (403)"
    if status == 401:
        return (
            f"{what} cannot be read: there is no such repository, or it is private and needs a "
            "login (401)"
        )
    if status == 404:
        if "RevisionNotFoundError" in kinds:
            return f"the Hub repository {file.repo} has no revision {file.revision} (404)"
        if "RepositoryNotFoundError" in kinds:
            return f"there is no Hub repository {file.repo} (404)"
        return f"the Hub repository {file.repo} has no file {file.path} (404)"
    if status == 429:
        return f"the Hub asks to wait before {what} is fetched (429); try again in some minutes"
    if status is not None:
        return f"the Hub failed to send {what} ({status}); try again later"
    if isinstance(error, OSError) and "onsistency check" in str(error):
        return f"the download of {what} ended early; try again"
    return (
        f"{what} is not in the cache, and the download failed: there is no connection, or it "
        f"broke off ({type(chain[-1]).__name__}); try again"
    )


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


def check_repo(repo: str) -> None:
    """Check the form of a repository's name; raises ValueError unless it is owner/name."""
    if not REPO_ID.fullmatch(repo):
        raise ValueError(f"repo must be owner/name; got {repo!r}")


@contextlib.contextmanager
def uploading(repo: str) -> Iterator[Any]:
    """Yield the Hub's client for an upload to a repository.

    Raises:
        CheckpointError: the Hub cannot be reached or does not take what is uploaded inside.
    """
    client = hub_client()
    try:
        yield client
    except Exception as error:  # the client passes on errors of the network and of the login
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise CheckpointError(
                f"the Hub does not let you write to {repo} ({status}); log in with a token that may"
            ) from error
        raise CheckpointError(f"the upload to {repo} failed: {error}") from error
