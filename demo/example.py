"""The result that is on the page before the first click, made once by the model itself."""

from __future__ import annotations

import threading
from typing import Any

from PIL import Image

from . import frames, handlers, render
from .settings import MAX_IMAGES, usual_values

EXAMPLE_SEED = 2
TILE_SEED = 5
QUICK_PARAMETERS = 20_000_000
MAX_TILES = 32  # more classes are found by typing


def example_classes(classes: list[str]) -> list[str]:
    """Up to four classes spread over the list; the page opens with them chosen."""
    return list(dict.fromkeys(classes[(2 * i + 1) * len(classes) // 8] for i in range(4)))


class FirstResult:
    """A finished run and the codebook's picture, made on first use and kept.

    Args:
        model: a `MaskGIT`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._usual = usual_values(model)
        self._lock = threading.Lock()
        self._run: dict[str, Any] | None = None
        self._codebook: dict[str, Any] | None = None
        self._tiles: dict[str, Any] | None = None

    @property
    def quick(self) -> bool:
        """Whether the model is small enough to be shown off while visitors wait."""
        return sum(p.numel() for p in self._model.transformer.parameters()) <= QUICK_PARAMETERS

    def run(self) -> dict[str, Any]:
        """Four images of classes spread over the list, as `handlers.generate_run` ends.

        Empty for a model that is not quick.
        """
        with self._lock:
            if self._run is None and self.quick:
                chosen = example_classes(list(self._model.classes))
                request = handlers.parse_generate(self._model, chosen, 4, EXAMPLE_SEED, self._usual)
                for run, _ in handlers.generate_run(self._model, request):
                    self._run = run
            return self._run or {}

    def codebook(self) -> dict[str, Any]:
        """Colours and decoded patches of all codes."""
        with self._lock:
            if self._codebook is None:
                patches = handlers.as_array(self._model.codebook_patches())
                self._codebook = frames.codebook_payload(handlers.model_name(self._model), patches)
            return self._codebook

    def tiles(self) -> dict[str, Any]:
        """One small image per class, made by the model; none where there are too many classes."""
        with self._lock:
            if self._tiles is None:
                classes = list(self._model.classes)
                shown = classes if len(classes) <= MAX_TILES and self.quick else []
                images: list[Any] = []
                for start in range(0, len(shown), MAX_IMAGES):
                    part = shown[start : start + MAX_IMAGES]
                    request = handlers.parse_generate(
                        self._model, part, len(part), TILE_SEED, self._usual
                    )
                    result = self._model.generate(
                        list(request.labels), config=request.config, seed=request.seed
                    )
                    images += list(render.to_uint8(handlers.as_array(result.images)))
                self._tiles = {
                    "tiles": [
                        {"name": name, "src": render.data_url(Image.fromarray(image))}
                        for name, image in zip(shown, images, strict=True)
                    ]
                }
            return self._tiles

    def warm_up(self) -> None:
        """Make all of it now, in a thread of its own, so that the first visitor need not wait."""
        threading.Thread(
            target=lambda: (self.codebook(), self.run(), self.tiles()), daemon=True
        ).start()
