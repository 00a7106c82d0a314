"""The model in use, shared by all visitors, and the menu of models that it can be changed for."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from demo.settings import RequestError
from maskgit_core import CheckpointError, MaskGIT
from maskgit_core.inputs import folder_name
from maskgit_core.weights import hub
from maskgit_core.weights.checkpoint import load_checkpoint, read_config
from maskgit_core.weights.known import KNOWN_WEIGHTS, KnownWeights

log = logging.getLogger(__name__)

T = TypeVar("T")

REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class ModelEntry:
    """One line of the menu.

    Args:
        name: what the page, links and recipes call the model.
        source: a checkpoint folder, a known name or owner/name of a Hub repository.
        known: what is known of published weights; None for other models.
    """

    name: str
    source: str
    known: KnownWeights | None = None

    def facts(self) -> str:
        """One line on size, resolution, published quality and what the first use downloads."""
        if self.known is None:
            return _folder_facts(Path(self.source))
        known = self.known
        parts = [
            f"{known.image_size} px",
            f"{known.params:.0f} M parameters",
            f"FID {known.fid:g}",
            _where(known),
        ]
        return ", ".join(parts)

    @property
    def download(self) -> bool:
        """Whether its first use asks another machine for files."""
        return self.known is not None and bool(self.known.repo) and not hub.is_converted(self.known)


def _where(known: KnownWeights) -> str:
    if hub.is_converted(known):
        return "on this machine"
    if not known.repo:
        return "needs files brought by hand"
    size = known.download_megabytes
    return f"about {size / 1000:.1f} GB to download" if size >= 1000 else f"{size} MB to download"


def _folder_facts(folder: Path) -> str:
    try:
        config = read_config(folder)
        size, classes = int(config["tokenizer"]["image_size"]), len(config.get("classes", []))
    except (CheckpointError, KeyError, TypeError, ValueError):
        return ""
    return f"{size} px, {classes} classes, on this machine"


def known_entries() -> tuple[ModelEntry, ...]:
    """The published weights that load by name."""
    return tuple(ModelEntry(name, name, known) for name, known in KNOWN_WEIGHTS.items())


def menu_entries(embedded: str, started: tuple[str, str]) -> tuple[ModelEntry, ...]:
    """The whole menu: the model that ships, the one that the page starts with, published ones.

    Args:
        embedded: folder of the model that ships; left out where it is missing.
        started: name and source of the model that the page starts with.
    """
    first = []
    if Path(embedded).is_dir():
        first.append(ModelEntry(folder_name(embedded), embedded))
    known = known_entries()
    if started[0] not in {entry.name for entry in (*first, *known)}:
        first.append(ModelEntry(*started))
    return (*first, *known)


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
        fetch: from an entry's source to a folder; may take long.
        load: from a folder and a name to a model.
    """

    def __init__(
        self,
        model: MaskGIT,
        entries: Sequence[ModelEntry] = (),
        *,
        source: Path | None = None,
        fixed: bool = False,
        fetch: Callable[[str], Path] = hub.resolve_checkpoint,
        load: Callable[[Path, str], MaskGIT] = load_model,
    ) -> None:
        self.entries = () if fixed else tuple(entries)
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
                    f"The model was changed to {self.name} on another page. To go on with it, "
                    f"choose {self.name} in the model menu and press Use this model."
                )
            return self.current

    def fetch(self, name: str) -> Path:
        """Return the folder of a model of the menu, downloaded and converted where necessary.

        Raises:
            RequestError: it is not in the menu or cannot be fetched; one sentence.
        """
        entry = self.find(name)
        if entry is None:
            raise RequestError("Choose a model from the menu.")
        try:
            # One at a time: a second visitor who asks for the same finds it done.
            with self._fetching:
                return Path(self._fetch(entry.source))
        except (CheckpointError, ValueError, OSError) as error:
            raise RequestError(self._refusal(name, error)) from None
        except Exception as error:
            log.exception("a model could not be fetched")
            raise RequestError(self._refusal(name, error)) from None

    def fetch_watched(
        self, name: str, every: float = REPORT_SECONDS
    ) -> Generator[str, None, Path | None]:
        """As `fetch`, with a sentence on its progress now and then; returns the folder."""
        entry = self.find(name)
        started, before = time.monotonic(), _cached_bytes(entry)
        done: dict[str, Any] = {}

        def work() -> None:
            try:
                done["folder"] = self.fetch(name)
            except Exception as error:
                done["error"] = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(min(every, 0.2))
        while thread.is_alive():
            yield _progress(name, entry, _cached_bytes(entry) - before, time.monotonic() - started)
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
                if not isinstance(error, CheckpointError | ValueError | OSError):
                    log.exception("a model could not be loaded")
                sentence = self._refusal(name, error)
            # Outside the handler, where nothing holds on to the half of the model that was read.
            if self._model is None and source is not None:
                try:
                    self._put(self._load(source, before), source)
                except Exception:
                    log.exception("the model before could not be loaded again")
            raise RequestError(sentence)

    def _refusal(self, name: str, error: Exception) -> str:
        plain = isinstance(error, CheckpointError | ValueError | OSError)
        reason = " ".join(str(error).split()) if plain else "an unexpected error"
        if isinstance(error, MemoryError):
            reason = "there is not enough memory"
        return f"{name} cannot be used: {reason.rstrip('.')}. {self._name} stays in use."


def as_holder(model: MaskGIT | ModelHolder) -> ModelHolder:
    """A holder without a menu for a bare model; a holder is returned as it is."""
    return model if isinstance(model, ModelHolder) else ModelHolder(model)


def _cached_bytes(entry: ModelEntry | None) -> int:
    if entry is None or entry.known is None or not entry.download:
        return 0
    return hub.cached_bytes(entry.known)


def _progress(name: str, entry: ModelEntry | None, got: int, seconds: float) -> str:
    if entry is None or entry.known is None or not entry.download:
        return f"Preparing {name}, {seconds:.0f} s so far."
    total = entry.known.download_megabytes
    megabytes = got / 1e6
    if megabytes >= 0.98 * total:
        return f"Converting {name}, {seconds:.0f} s so far."
    return f"Fetching {name}: {megabytes:.0f} of about {total} MB, {seconds:.0f} s so far."
