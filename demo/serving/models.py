"""The model in use, shared by all visitors, and the menu of models that it can be changed for."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from demo.serving.catalogue import Lookout, ModelEntry
from demo.settings import RequestError
from maskgit_core import CheckpointError, MaskGIT
from maskgit_core.hub_client import FetchError
from maskgit_core.weights import hub
from maskgit_core.weights.checkpoint import load_checkpoint
from maskgit_core.weights.progress import CHECKING, CONVERTING, Progress
from maskgit_core.weights.published import size_words

log = logging.getLogger(__name__)

T = TypeVar("T")

REPORT_SECONDS = 1.0


# What a visitor is told of a fetch that failed; the log has the rest.
REASONS = {
    "offline": "there is no connection to where it is kept",
    "no room": "there is no room for it on this machine's disk",
    "missing": "it is no longer where it was published",
    "refused": "its publisher asks for a login first",
    "busy": "the server that keeps it is busy; try again in some minutes",
    "broken": "the download broke off; try again",
    "damaged": "what arrived was damaged and has been removed; try again",
    "changed": "its publisher has replaced it by something that nobody here has checked",
}


class Report(NamedTuple):
    """How far a fetch is.

    Attributes:
        sentence: for people.
        share: of the bytes that have arrived, 0 to 1; None where nothing travels.
    """

    sentence: str
    share: float | None = None


class Fetch(Protocol):
    """Gives an entry's folder, fetched where necessary; may take long."""

    def __call__(self, source: str, *, progress: Progress) -> Path:
        """Return the folder."""
        ...


def load_model(folder: Path, name: str, *, precision: str = "float32") -> MaskGIT:
    """Load a checkpoint folder under a name of its own."""
    return MaskGIT(load_checkpoint(folder), name, precision=precision)


class ModelHolder:
    """Holds the one model in memory.

    A run takes `current` once and keeps to it, so it ends on the model that it began with.

    Args:
        model: the model to begin with.
        entries: the menu; a model that is not in it cannot be switched to.
        source: folder of `model`, from which it can be read again. Without one it stays in
            memory until its successor is loaded.
        fixed: whether the menu is switched off.
        fetch: from an entry's source to a folder.
        load: from a folder and a name to a model.

    Attributes:
        entries: the menu.
        lookout: what this machine can do.
    """

    def __init__(
        self,
        model: MaskGIT,
        entries: Sequence[ModelEntry] = (),
        *,
        source: Path | None = None,
        fixed: bool = False,
        fetch: Fetch = hub.resolve_checkpoint,
        load: Callable[[Path, str], MaskGIT] = load_model,
    ) -> None:
        self.entries = () if fixed else tuple(entries)
        self.lookout = Lookout()
        self._fetch = fetch
        self._load = load
        # Reading is guarded too: while a model is loaded there may be none.
        self._lock = threading.RLock()
        self._fetching = threading.Lock()
        self._put(model, source)

    def _put(self, model: MaskGIT, source: Path | None) -> None:
        self._model: MaskGIT | None = model
        self._made: dict[Any, Any] = {}
        self._source = source
        self._name = str(model.name)

    @property
    def current(self) -> MaskGIT:
        """The model in use.

        Raises:
            RequestError: there is none, because the last one could not be read again.
        """
        with self._lock:
            if self._model is None:
                raise RequestError("No model is loaded. Choose one in the model menu.")
            return self._model

    @property
    def ready(self) -> bool:
        """Whether a model is loaded; never waits for one that is being loaded."""
        return self._model is not None

    @property
    def name(self) -> str:
        """Name of the model in use."""
        return self._name

    @property
    def title(self) -> str:
        """What the page calls the model in use."""
        return self.title_of(self._name)

    def title_of(self, name: str) -> str:
        """What the page calls a model."""
        entry = self.find(name)
        return name if entry is None else entry.title

    def once(self, make: Callable[[MaskGIT], T]) -> T:
        """What a function makes of the model in use: made once, and dropped with the model.

        Raises:
            RequestError: as `current`.
        """
        with self._lock:
            if make not in self._made:
                self._made[make] = make(self.current)
            return self._made[make]

    def find(self, name: str) -> ModelEntry | None:
        """The entry of that name; None where the menu has none."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def expect(self, name: str) -> MaskGIT:
        """The model in use, if it still is the one that a page was made for.

        Raises:
            RequestError: another visitor has changed the model.
        """
        with self._lock:
            if self.name != name:
                raise RequestError(
                    f"The model was changed to {self.title} on another page. To go on with it, "
                    f"choose {self.title} in the model menu and press Use this model."
                )
            return self.current

    def fetch(self, name: str, progress: Progress | None = None) -> Path:
        """Return the folder of a model of the menu, downloaded and converted where necessary.

        Raises:
            RequestError: it is not in the menu, cannot be fetched, or was cancelled; one sentence.
        """
        entry = self.find(name)
        if entry is None:
            raise RequestError("Choose a model from the menu.")
        progress = progress or Progress()
        try:
            # One at a time: a second visitor who asks for the same finds it done.
            with self._fetching:
                progress.check()
                return Path(self._fetch(entry.source, progress=progress))
        except Exception as error:
            raise RequestError(self._refusal(name, error)) from None

    def fetch_watched(
        self, name: str, progress: Progress | None = None, every: float = REPORT_SECONDS
    ) -> Generator[Report, None, Path]:
        """As `fetch`, with a report on its progress now and then; returns the folder."""
        progress = progress or Progress()
        started = time.monotonic()
        done: dict[str, Any] = {}

        def work() -> None:
            try:
                done["folder"] = self.fetch(name, progress)
            except Exception as error:
                done["error"] = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(min(every, 0.2))
        while thread.is_alive():
            yield _report(self.title_of(name), progress, time.monotonic() - started)
            thread.join(every)
        if "error" in done:
            raise done["error"]
        return done["folder"]

    def use(self, name: str, folder: Path) -> MaskGIT:
        """Make a fetched model the one in use; the old one is dropped first, to save memory.

        Raises:
            RequestError: it cannot be loaded; the old one is in use again.
        """
        with self._lock:
            if name == self._name and self._model is not None:
                return self._model
            before, source = self._name, self._source
            if source is not None:
                self._model, self._made = None, {}
                gc.collect()
            try:
                self._put(self._load(folder, name), folder)
                gc.collect()
                return self.current
            except Exception as error:
                sentence = self._refusal(name, error)
            # Outside the handler, where nothing holds on to the half of the model that was read.
            if self._model is None and source is not None:
                try:
                    self._put(self._load(source, before), source)
                except Exception:
                    log.exception("the model before could not be loaded again")
            raise RequestError(sentence)

    def _refusal(self, name: str, error: Exception) -> str:
        """What a visitor is told; the log gets what an owner needs."""
        stays = f"{self.title} stays in use."
        if isinstance(error, FetchError) and error.reason == "cancelled":
            return f"The download was cancelled. {stays}"
        if isinstance(error, FetchError):
            reason = REASONS[error.reason]
        elif isinstance(error, MemoryError):
            reason = "there is not enough memory"
        elif isinstance(error, CheckpointError | ValueError | OSError):
            reason = "its files cannot be read here"
        else:
            reason = "something went wrong"
        log.warning("%s cannot be used: %s", name, " ".join(str(error).split()), exc_info=error)
        return f"{self.title_of(name)} cannot be used: {reason}. {stays}"


def as_holder(model: MaskGIT | ModelHolder) -> ModelHolder:
    """A holder without a menu for a bare model; a holder is returned as it is."""
    return model if isinstance(model, ModelHolder) else ModelHolder(model)


def _report(title: str, progress: Progress, seconds: float) -> Report:
    done, total = progress.done, progress.total
    if progress.stage == CONVERTING:
        return Report(f"Converting {title}, {seconds:.0f} s so far.", 1.0)
    if not total:
        return Report(f"Preparing {title}, {seconds:.0f} s so far.")
    share = done / total
    if progress.stage == CHECKING:
        return Report(f"Checking {title}.", share)
    return Report(f"Fetching {title}: {size_words(done)} of {size_words(total)}.", share)
