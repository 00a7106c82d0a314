"""The Hugging Face Hub's client: where it is imported, and its errors as one clear sentence each.

Everything that talks to the Hub goes through `huggingface_hub`: its cache, its token, `HF_HOME`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE` and the proxies of the environment.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from typing import Any

from maskgit_core.files import CheckpointError

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# The Xet transfer is native code, whose errors carry their number in the text only.
NO_ROOM_TEXT = re.compile(
    rf"No space left|quota exceeded|os error ({'|'.join(map(str, NO_ROOM))})\b"
)
REACH_SECONDS = 3.0


class FetchError(CheckpointError):
    """A file could not be fetched.

    Attributes:
        reason: one of `offline`, `no room`, `missing`, `refused`, `busy`, `broken`, `damaged`,
            `cancelled`; what a page says in its own words.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


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


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids to fetch anything."""
    return bool(hub_client().constants.HF_HUB_OFFLINE)


def is_reachable(seconds: float = REACH_SECONDS) -> bool:
    """Whether the Hub answers at all within some seconds, whatever it says."""
    client = hub_client()
    if is_offline():
        return False
    try:
        from huggingface_hub.utils import get_session

        get_session().head(client.constants.ENDPOINT, timeout=seconds)
    except Exception:  # no network, no name, no certificate: all of it means no
        return False
    return True


def check_repo(repo: str) -> None:
    """Check the form of a repository's name; raises ValueError unless it is owner/name."""
    if not REPO_ID.fullmatch(repo):
        raise ValueError(f"repo must be owner/name; got {repo!r}")


def causes(error: BaseException) -> list[BaseException]:
    """Return an error and what led to it, at most ten of them, the last cause last."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and len(chain) < 10:
        chain.append(step)
        step = step.__cause__ or step.__context__
    return chain


def is_out_of_room(error: BaseException) -> bool:
    """Whether a full disk is behind an error."""
    return any(
        getattr(link, "errno", None) in NO_ROOM or NO_ROOM_TEXT.search(str(link))
        for link in causes(error)
    )


def explain(error: Exception, repo: str, path: str, revision: str) -> FetchError:
    """Return what the Hub's client raised for a file as one clear sentence."""
    what = f"{path.rpartition('/')[2]} of the Hub repository {repo}"
    chain = causes(error)
    kinds = {base.__name__ for link in chain for base in type(link).__mro__}
    answers = (getattr(link, "response", None) for link in chain)
    status = next((answer.status_code for answer in answers if answer is not None), None)
    if "OfflineModeIsEnabled" in kinds or is_offline():
        return FetchError(
            "offline", f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it"
        )
    if is_out_of_room(error):
        return FetchError("no room", f"no room on the disk for {what}; free some and try again")
    if "GatedRepoError" in kinds or status == 403:
        return FetchError(
            "refused",
            f"{what} is behind a form: accept its terms on the Hub and log in there (403)",
        )
    if status == 401:
        return FetchError(
            "refused",
            f"{what} cannot be read: there is no such repository, or it is private and needs a "
            "login (401)",
        )
    if status == 404:
        return FetchError("missing", _not_found(kinds, repo, path, revision))
    if status == 429:
        return FetchError(
            "busy",
            f"the Hub asks to wait before {what} is fetched (429); try again in some minutes",
        )
    if status is not None:
        return FetchError("busy", f"the Hub failed to send {what} ({status}); try again later")
    if isinstance(error, OSError) and "onsistency check" in str(error):
        return FetchError(
            "broken", f"the download of {what} ended early; try again, it starts over"
        )
    if "ConnectError" in kinds or "LocalEntryNotFoundError" in kinds:
        return FetchError(
            "offline", f"{what} is not in the cache, and there is no connection to the Hub"
        )
    return FetchError(
        "broken",
        f"{what} is not in the cache, and the download broke off; try again, it starts over",
    )


def _not_found(kinds: set[str], repo: str, path: str, revision: str) -> str:
    if "RevisionNotFoundError" in kinds:
        return f"the Hub repository {repo} has no revision {revision} (404)"
    if "RepositoryNotFoundError" in kinds:
        return f"there is no Hub repository {repo} (404)"
    return f"the Hub repository {repo} has no file {path} (404)"


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
