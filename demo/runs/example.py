"""The result that is on the page before the first click, made once by the model itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image

from demo.presets import usual_values
from demo.runs import frames, render
from demo.runs.follow import Progress, follow
from demo.runs.generate import parse_generate
from demo.serving.models import ModelHolder
from demo.serving.runner import Runner
from demo.serving.steps import decode_alone
from demo.settings import RequestError

Turn = Callable[[Callable[[], Any]], Any]

EXAMPLE_SEED = 8
TILE_SEED = 6
QUICK_PARAMETERS = 20_000_000
MAX_TILES = 32  # more classes are found by typing


def example_classes(classes: list[str]) -> list[str]:
    """Up to four classes spread over the list; the page opens with them chosen."""
    return list(dict.fromkeys(classes[(2 * i + 1) * len(classes) // 8] for i in range(4)))


def at_once(work: Callable[[], Any]) -> Any:
    """Compute something here and now."""
    return work()


def in_turn(runner: Runner) -> Turn:
    """Return what computes a piece when its turn has come among the jobs of visitors."""
    return partial(runner.call, "example", refusable=False)


def first_result(models: ModelHolder) -> FirstResult:
    """That of the model in use."""
    return models.once(FirstResult)


class FirstResult:
    """A finished run and the codebook's picture, made on first use and kept.

    Every method takes `turn`, which computes a piece of work and returns its result. Pieces are
    small, so that whoever comes meanwhile waits for one of them and not for all.

    Args:
        model: a `MaskGIT`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._usual = usual_values(model)
        self._lock = threading.Lock()
        self._run: Progress | None = None
        self._codebook: dict[str, Any] | None = None
        self._tiles: dict[str, Any] | None = None

    @property
    def quick(self) -> bool:
        """Whether the model is small enough to be shown off while visitors wait."""
        return sum(p.numel() for p in self._model.transformer.parameters()) <= QUICK_PARAMETERS

    def run(self, turn: Turn = at_once) -> Progress | None:
        """Four images of classes spread over the list, finished; None where not `quick`."""
        with self._lock:
            if self._run is None and self.quick:
                self._run = turn(self._example)
            return self._run

    def _example(self) -> Progress:
        chosen = example_classes(list(self._model.classes))
        request = parse_generate(self._model, chosen, 4, EXAMPLE_SEED, self._usual)
        return list(follow(request, decode_alone(self._model)))[-1]

    def codebook(self, turn: Turn = at_once) -> dict[str, Any]:
        """Colours and decoded patches of all codes."""
        with self._lock:
            if self._codebook is None:
                patches = frames.as_array(turn(self._model.codebook_patches))
                self._codebook = frames.codebook_payload(str(self._model.name), patches)
            return self._codebook

    def tiles(self, turn: Turn = at_once) -> dict[str, Any]:
        """One small image per class, made by the model; none where there are too many classes."""
        with self._lock:
            if self._tiles is None:
                classes = list(self._model.classes)
                shown = classes if len(classes) <= MAX_TILES and self.quick else []
                self._tiles = {
                    "tiles": [
                        {"name": name, "src": turn(partial(self._tile, name, TILE_SEED + i))}
                        for i, name in enumerate(shown)
                    ]
                }
            return self._tiles

    def _tile(self, name: str, seed: int) -> str:
        request = parse_generate(self._model, [name], 1, seed, self._usual)
        result = self._model.generate(list(request.labels), config=request.configs[0], seed=seed)
        (image,) = render.to_uint8(frames.as_array(result.images))
        return render.data_url(Image.fromarray(image))

    def warm_up(self, turn: Turn) -> None:
        """Make all of it now, in a thread of its own, so that the first visitor need not wait."""

        def work() -> None:
            with contextlib.suppress(RequestError):  # the server stops
                self.codebook(turn)
                self.run(turn)
                self.tiles(turn)

        threading.Thread(target=work, daemon=True).start()
