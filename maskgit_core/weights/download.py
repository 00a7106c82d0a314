"""One published file on this machine, checked: brought by hand, from a cache, or fetched.

Files of the Hub that are to be converted are fetched into a folder of ours, so that they can be
removed afterwards: what lies in the Hub's own cache belongs to every program of this user, is used
where it is there, and is never removed. In that cache a snapshot's entry is a link to a blob that
is named by the SHA-256 of its content, and with the shared store of huggingface-hub 2 that blob is
a link again, to a file that is named by its Xet hash, which is another one: so what the Hub
announced is the name at the end of the first link, and of no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from maskgit_core.hub_client import FetchError, explain, hub_client, is_offline
from maskgit_core.weights.address import fetch_address
from maskgit_core.weights.progress import CHECKING, FETCHING, Progress, hub_bar
from maskgit_core.weights.published import KnownWeights, PublishedFile, size_words

SHA256 = re.compile(r"[0-9a-f]{64}")
CONVERTED, DOWNLOADS, KEPT = "maskgit", "maskgit-downloads", ".keep"


def converted_root() -> Path:
    """Return the folder of converted weights, which holds files brought by hand too."""
    return Path(hub_client().constants.HF_HOME) / CONVERTED


def hand_folder(known: KnownWeights) -> Path:
    """Return where the files of a known name can be put by hand."""
    return converted_root() / known.name


def download_folder(known: KnownWeights) -> Path:
    """Return where the files of a known name are fetched to; no other program counts on it."""
    return Path(hub_client().constants.HF_HOME) / DOWNLOADS / known.name


def keep_downloads(known: KnownWeights) -> None:
    """Let what was fetched for a known name stay, from now on."""
    folder = download_folder(known)
    if folder.is_dir():
        (folder / KEPT).touch()


def drop_downloads(known: KnownWeights) -> None:
    """Remove what was fetched for a known name, as far as possible, unless it is to stay."""
    folder = download_folder(known)
    if (folder / KEPT).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other names are still being fetched
        folder.parent.rmdir()


def published_file(known: KnownWeights, file: PublishedFile, progress: Progress) -> Path:
    """Return the path of a file of known weights, checked; it may be a link and is not ours.

    Raises:
        FetchError: it cannot be fetched, or its content is not what it has to be.
    """
    progress.enter(FETCHING)
    hand, folder = hand_folder(known), download_folder(known)
    path = hand / file.name
    if path.is_file():
        check_content(path, file, None, progress, keep=True)
    elif file.repo:
        path = hub_file(file, folder, progress)
    else:
        path = fetch_address(file, folder, hand, known.source, progress)
    progress.finish(file.path, path.stat().st_size)
    return path


def hub_file(file: PublishedFile, folder: Path, progress: Progress) -> Path:
    """Return a file of the Hub: from its cache, from the folder, or fetched into the folder."""
    cached = in_cache(file)
    if cached is not None:
        check_content(cached, file, announced_hash(cached), progress)
        return cached
    here = folder / file.path
    if here.is_file() and file.verified:
        check_content(here, file, None, progress)
        return here
    client = hub_client()
    announced = None
    try:
        url = client.hf_hub_url(file.repo, file.path, revision=file.revision)
        facts = client.get_hf_file_metadata(url)
        announced = facts.etag
        if facts.size and not here.is_file():
            progress.expect(file.path, facts.size)
            check_room(folder, facts.size, file)
        progress.on_cancel(stop_transfer)
        path = client.hf_hub_download(
            file.repo,
            file.path,
            revision=facts.commit_hash or file.revision,
            local_dir=folder,
            tqdm_class=hub_bar(progress, file.path),
        )
    except Exception as error:  # the client passes on errors of the network and of the disk
        progress.check()  # a transfer that is stopped ends with any error
        refusal = as_fetch_error(error, file.repo, file.path, file.revision)
        if refusal.reason == "offline" and here.is_file():
            return here
        raise refusal from error
    check_content(Path(path), file, announced, progress)
    return Path(path)


def in_cache(file: PublishedFile) -> Path | None:
    """Return a file's entry in the Hub's cache, unless it is of another content than is wanted."""
    found = hub_client().try_to_load_from_cache(file.repo, file.path, revision=file.revision)
    if not isinstance(found, str):
        return None
    announced = announced_hash(Path(found))
    # Of an older or a newer version nothing is wrong; it stays, and ours is fetched beside it.
    if file.verified and announced is not None and announced != file.sha256:
        return None
    return Path(found)


def announced_hash(path: Path) -> str | None:
    """Return the SHA-256 that the Hub announced for an entry of its cache.

    None for small files, which have another kind of hash, and where there are no links.
    """
    if not path.is_symlink():
        return None
    name = path.readlink().name
    return name if SHA256.fullmatch(name) else None


def sha256_of(path: Path, progress: Progress) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
            progress.check()
    return digest.hexdigest()


def check_content(
    path: Path,
    file: PublishedFile,
    announced: str | None,
    progress: Progress,
    *,
    keep: bool = False,
) -> None:
    """Compare a file with the hash in the record or, without one, with what the Hub announced.

    Raises:
        FetchError: another content. The file, or in the Hub's cache the link to it, is removed
            unless it is to be kept, as what was brought by hand.
    """
    if announced is not None and not SHA256.fullmatch(announced):
        announced = None
    wanted = file.sha256 if file.verified else announced
    if wanted is None:
        return
    progress.enter(CHECKING)
    found = sha256_of(path, progress)
    progress.enter(FETCHING)
    if found == wanted:
        return
    differs = f"{file.name} has the hash {found[:12]}, not {wanted[:12]}"
    if keep:
        raise FetchError("damaged", f"{differs}: {path} is damaged or another version")
    path.unlink(missing_ok=True)  # a link, in the Hub's cache: what it leads to stays
    if found == announced:
        since = f" since {file.commit}" if file.commit else ""
        raise FetchError(
            "changed",
            f"{differs}: {file.repo} holds another version of it{since}, which is not used",
        )
    raise FetchError(
        "damaged", f"{differs}: it was damaged on the way; it has been removed, try again"
    )


def check_room(folder: Path, size: int, file: PublishedFile) -> None:
    """Raise FetchError where the disk certainly has no room for a file."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise FetchError(
            "no room",
            f"no room on the disk for {file.name}: it needs {size_words(size)}, "
            f"{size_words(free)} are free",
        )


def as_fetch_error(error: Exception, repo: str, path: str, revision: str) -> FetchError:
    """Return an error of ours as it is, and one of the Hub's client explained."""
    return error if isinstance(error, FetchError) else explain(error, repo, path, revision)


def stop_transfer() -> None:
    """End a Xet transfer, which no exception of a progress bar reaches."""
    try:
        from huggingface_hub.utils._xet import abort_xet_session
    except ImportError:  # another release: the transfer goes on unseen until it is done
        return
    abort_xet_session()


def file_of_ours(repo: str, path: str, revision: str, progress: Progress) -> Path:
    """Return a file of a checkpoint of ours from the Hub's cache, fetched where necessary.

    Raises:
        FetchError: see `published_file`. Content that is not what the Hub announced, left by
            another download, is fetched anew once; the link to what is wrong still is removed.
    """
    client = hub_client()

    def fetch(**how: Any) -> tuple[Path, bool]:
        bar = hub_bar(progress, path)
        try:
            found = client.hf_hub_download(repo, path, revision=revision, tqdm_class=bar, **how)
        except Exception as error:  # the client passes on errors of the network and of the disk
            progress.check()
            raise as_fetch_error(error, repo, path, revision) from error
        return Path(found), bar.shown  # type: ignore[attr-defined]

    progress.enter(FETCHING)
    progress.on_cancel(stop_transfer)
    found, travelled = fetch()
    announced = announced_hash(found)
    if announced and sha256_of(found, progress) != announced and not travelled and not is_offline():
        found, _ = fetch(force_download=True)
    if announced and sha256_of(found, progress) != announced:
        found.unlink(missing_ok=True)  # the link; what it leads to may serve other programs
        raise FetchError(
            "damaged",
            f"{path} from {repo} is not what the Hub announced: it was damaged on the way; the "
            "link to it has been removed, try again",
        )
    progress.finish(path, found.stat().st_size)
    return found
