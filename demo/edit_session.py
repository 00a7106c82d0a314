"""What the Edit tab does, free of widgets: photos in, what the painter shows and requests out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import edits
from .models import as_holder
from .photos import PhotoStore, open_photo, painted_mask, painter_value

EXAMPLES = Path(__file__).parent / "examples"
REPAINT = "Repaint what I mark"
EXTEND = "Extend beyond the edges"


def example_photos() -> list[Path]:
    """The photos that ship with the page."""
    return sorted(EXAMPLES.glob("*.jpg"))


class EditSession:
    """Photos in, requests out; the photo in use is named by the path it is kept at.

    Args:
        model: a `MaskGIT`, or the holder of the one in use.
        store: where photos are kept.
    """

    def __init__(self, model: Any, store: PhotoStore) -> None:
        self._models = as_holder(model)
        self.store = store

    @property
    def model(self) -> Any:
        """The model in use."""
        return self._models.current

    def open(self, source: Any) -> tuple[dict[str, Any], str]:
        """Take a photo in: what the painter shows, and where the photo is kept.

        Raises:
            RequestError: it cannot be opened.
        """
        photo = open_photo(source)
        return painter_value(photo), self.store.save(photo)

    def preview(self, value: Any, kept: str | None) -> dict[str, Any] | None:
        """A run without steps that shows which cells would be decided; None without a mask."""
        if kept is None:
            return None
        photo = self.store.load(kept)
        mask = painted_mask(value, photo.size)
        return None if mask is None else edits.preview_edit(self.model, photo, mask)

    def request(
        self,
        value: Any,
        kept: str | None,
        mode: str,
        directions: list[str],
        amount: Any,
        class_name: Any,
        count: Any,
        seed: Any,
        values: dict[str, Any],
        start_percent: Any = 0,
    ) -> edits.EditRequest:
        """Check all that the tab holds.

        Raises:
            RequestError: one sentence that says what to change.
        """
        photo = None if kept is None else self.store.load(kept)
        if mode == EXTEND:
            return edits.parse_extend(
                self.model, photo, directions, amount, class_name, count, seed, values
            )
        mask = None if photo is None else painted_mask(value, photo.size)
        return edits.parse_edit(
            self.model, photo, mask, class_name, count, seed, values, start_percent
        )
