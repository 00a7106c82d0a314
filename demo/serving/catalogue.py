"""What the model menu offers, in plain words: what for, how quick here, and what is in the way."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskgit_core import CheckpointError
from maskgit_core.hub_client import is_offline, is_reachable
from maskgit_core.inputs import folder_name
from maskgit_core.weights import hub
from maskgit_core.weights.checkpoint import read_config
from maskgit_core.weights.download import converted_root, hand_folder
from maskgit_core.weights.known import KNOWN_WEIGHTS, TOKEN_PIXELS
from maskgit_core.weights.published import NOT_VERIFIED, KnownWeights, size_words

log = logging.getLogger(__name__)

# Work of a published tokenizer's decoder for a pixel, in floating point operations (counted; the
# networks of the menu differ by less than a third).
DECODER_WORK = 3.9e6
SPEED_ROWS, SPEED_WIDTH, SPEED_ROUNDS = 512, 1024, 5
LOOK_SECONDS = 60.0  # for so long an answer of the network counts
MEMORY_COPIES = 2  # of the weights, while a model is loaded or converted


@dataclass(frozen=True)
class Outlook:
    """What this machine can do, as far as anyone has looked.

    Attributes:
        reachable: whether the Hugging Face Hub answers; None before it was asked.
        speed: floating point operations a second of the networks' products; None before it was
            measured.
    """

    reachable: bool | None = None
    speed: float | None = None


@dataclass(frozen=True)
class ModelEntry:
    """One line of the menu.

    Args:
        name: what links and recipes call the model.
        source: a checkpoint folder, a known name or owner/name of a Hub repository.
        known: what is known of published weights; None for other models.
        built_in: whether it comes with the page.
    """

    name: str
    source: str
    known: KnownWeights | None = None
    built_in: bool = False

    @property
    def title(self) -> str:
        """What the page calls it."""
        if self.known is not None:
            return self.known.title
        return f"{self.name} (built in)" if self.built_in else self.name

    @property
    def download(self) -> bool:
        """Whether its first use asks another machine for files."""
        known = self.known
        if known is None or hub.is_converted(known):
            return False
        return not all((hand_folder(known) / file.name).is_file() for file in known.files)

    def facts(self, outlook: Outlook = Outlook()) -> str:
        """A few words on what it is good for and what it costs here."""
        if self.known is None:
            return _folder_facts(Path(self.source))
        known = self.known
        parts = [known.good_for, f"{known.image_size} pixels"]
        if known.wants_gpu:
            parts.append("wants a graphics card")
        if outlook.speed:
            parts.append(f"{time_words(picture_seconds(known, outlook.speed))} a picture here")
        if self.download:
            verified = "" if known.verified else f" ({NOT_VERIFIED})"
            parts.append(f"{size_words(known.download_bytes)} to download{verified}")
        else:
            parts.append("on this machine")
        return ". ".join(part[0].upper() + part[1:] for part in parts)

    def obstacle(self, outlook: Outlook = Outlook()) -> str:
        """Why it cannot be used here; empty where it can, as far as one can tell before."""
        known = self.known
        if known is None:
            return ""
        if MEMORY_COPIES * known.disk_bytes > _memory():
            return f"It needs {size_words(MEMORY_COPIES * known.disk_bytes)} of memory."
        if not self.download:
            return ""
        if outlook.reachable is False:
            return "No internet here."
        needed = known.download_bytes + known.disk_bytes
        free = _free_disk()
        if needed > free:
            return f"It needs {size_words(needed)} on the disk, {size_words(free)} are free."
        return ""


def picture_seconds(known: KnownWeights, speed: float) -> float:
    """Estimate how long one picture takes from the size of the networks.

    Args:
        known: the model.
        speed: floating point operations a second.
    """
    config = known.sampling
    passes = config.num_steps * (1 if config.guidance_scale == 1 else 2)
    tokens = (known.image_size / TOKEN_PIXELS) ** 2
    return (passes * 2e6 * known.params * tokens + DECODER_WORK * known.image_size**2) / speed


def time_words(seconds: float) -> str:
    """Return an estimate for people; more digits than one would be a lie."""
    if seconds < 1:
        return "less than a second"
    number, unit = (seconds, "s") if seconds < 90 else (seconds / 60, "min")
    step = 10 ** max(0, len(str(int(number))) - 1)
    return f"about {max(1, round(number / step)) * step} {unit}"


def _folder_facts(folder: Path) -> str:
    try:
        config = read_config(folder)
        size, classes = int(config["tokenizer"]["image_size"]), len(config.get("classes", []))
    except (CheckpointError, KeyError, TypeError, ValueError):
        return ""
    return f"{classes} classes. {size} pixels. On this machine"


def _memory() -> int:
    """Bytes of this machine's memory; without end where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 62


def _free_disk() -> int:
    """Bytes that are free where models are kept."""
    folder = converted_root()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def measured_speed(device: Any) -> float:
    """Floating point operations a second of a product of the networks' size; takes 0.1 s."""
    import torch

    rows = torch.ones(SPEED_ROWS, SPEED_WIDTH, device=device)
    weights = torch.ones(SPEED_WIDTH, SPEED_WIDTH, device=device)
    best = float("inf")
    for _ in range(SPEED_ROUNDS):
        started = time.perf_counter()
        float((rows @ weights)[0, 0])  # a GPU is waited for
        best = min(best, time.perf_counter() - started)
    return 2 * SPEED_ROWS * SPEED_WIDTH**2 / best


class Lookout:
    """Keeps what this machine can do, and looks again where the network may have changed.

    Args:
        reach: asks whether the Hub answers.
    """

    def __init__(self, reach: Callable[[], bool] = is_reachable) -> None:
        self._reach = reach
        self._looked = 0.0
        self.outlook = Outlook(reachable=False if is_offline() else None)

    def reach(self) -> None:
        """Ask whether the Hub answers, unless that was asked a minute ago; takes some seconds."""
        now = time.monotonic()
        if self.outlook.reachable is None or now - self._looked > LOOK_SECONDS:
            self._looked = now
            self.outlook = replace(self.outlook, reachable=self._reach())

    def measure(self, measure: Callable[[], float], turn: Callable[[Callable], float]) -> bool:
        """Measure the speed once; returns whether it is news.

        Args:
            measure: gives the speed.
            turn: calls it when nothing else is computed.
        """
        if self.outlook.speed is not None:
            return False
        try:
            speed = turn(measure)
        except Exception:  # a menu without times is better than none
            log.exception("the speed could not be measured")
            return False
        self.outlook = replace(self.outlook, speed=speed)
        return True


def headline(entries: tuple[ModelEntry, ...], outlook: Outlook) -> str:
    """A sentence above the menu where something stands in the way of most of it."""
    if outlook.reachable is not False or not any(entry.download for entry in entries):
        return ""
    here = [entry for entry in entries if not entry.obstacle(outlook)]
    if len(here) == 1 and here[0].built_in:
        return "No internet here, so only the built-in model works."
    return "No internet here, so only the models that are on this machine work."


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
        first.append(ModelEntry(folder_name(embedded), embedded, built_in=True))
    known = known_entries()
    if started[0] not in {entry.name for entry in (*first, *known)}:
        first.append(ModelEntry(*started))
    return (*first, *known)
