"""What the Edit tab does, free of widgets: photos in, what the painter shows and requests out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo.runs import edit, edit_frame
from demo.runs.photos import PhotoStore, open_photo, painted_mask, painter_value
from demo.serving.models import as_holder

EXAMPLES = Path(__file__).parents[1] / "examples"
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
        # A small square photo is always seen whole: there is nothing to frame.
        whole = photo.width == photo.height <= 2 * int(self.model.image_size)
        # An example is kept where it lies: there it outlives any sweep, and a full disk.
        own = isinstance(source, Path) and source in example_photos()
        path = str(source) if own else self.store.save(photo)
        return painter_value(photo) | {"framed": not whole}, path

    def preview(self, value: Any, kept: str | None) -> tuple[dict[str, Any], list[float]] | None:
        """What a repaint would do, while the mask is still being painted.

        Returns:
            A run without steps that shows which cells would be decided, and the frame as
            `edit_frame.frame_shares`; None where nothing is painted (inside it).
        """
        if kept is None:
            return None
        photo = self.store.load(kept)
        mask = painted_mask(value, photo.size)
        if mask is None:
            return None
        frame = value.get("frame")
        if not edit_frame.framed_mask(mask, edit_frame.parse_frame(frame, photo.size)).any():
            return None
        plan = edit_frame.plan_repaint(self.model, photo, mask, frame)
        return edit.mask_preview(self.model, plan), edit_frame.frame_shares(plan)

    def preview_extend(
        self, kept: str | None, directions: list[str], amount: Any
    ) -> dict[str, Any] | None:
        """A run without steps that shows which cells an extension would decide; None if none can.

        Args:
            kept, directions, amount: as in `request`.
        """
        if kept is None or not directions:
            return None
        photo = self.store.load(kept)
        plan, _ = edit_frame.plan_sides(
            self.model, photo, edit_frame.parse_sides(directions, amount)
        )
        return edit.mask_preview(self.model, plan)

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
    ) -> edit.EditRequest:
        """Check all that the tab holds.

        Raises:
            RequestError: one sentence that says what to change.
        """
        photo = None if kept is None else self.store.load(kept)
        if mode == EXTEND:
            return edit.parse_extend(
                self.model, photo, directions, amount, class_name, count, seed, values
            )
        mask = None if photo is None else painted_mask(value, photo.size)
        frame = value.get("frame") if isinstance(value, dict) else None
        return edit.parse_edit(
            self.model, photo, mask, class_name, count, seed, values, start_percent, frame
        )
