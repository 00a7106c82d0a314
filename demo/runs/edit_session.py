"""What the Edit tab does, free of widgets: photos in, what the painter shows and requests out."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from demo.runs import edit, edit_frame
from demo.runs.edit import Edit
from demo.runs.photos import PhotoStore, open_photo, painted_mask, painter_value
from demo.serving.models import ModelHolder, as_holder
from demo.serving.request import Request
from demo.settings import RequestError

EXAMPLES = Path(__file__).parents[1] / "examples"
REPAINT = "Repaint what I mark"
EXTEND = "Extend beyond the edges"
# Of photos whose last plan is kept, all together: about 5 bytes each. The last one always is.
MAX_PLANNED_PIXELS = 24_000_000

Key = tuple[str, tuple[str, str, str]]  # name of the model, and `Task.key`


def example_photos() -> list[Path]:
    """The photos that ship with the page."""
    return sorted(EXAMPLES.glob("*.jpg"))


@dataclass(frozen=True)
class Task:
    """What is to be done with the photo in use: all that its plan depends on.

    Args:
        path: where the photo is kept; None where there is none.
        painted: what the painter sent: {mask, frame}.
        mode: `REPAINT` or `EXTEND`.
        directions, amount: as in `edit_frame.parse_sides`.
    """

    path: str | None
    painted: Any = None
    mode: str = REPAINT
    directions: Any = ()
    amount: Any = 50

    def key(self) -> tuple[str, str, str]:
        """Equal for equal plans of a photo; the first is the mode."""
        if self.mode == EXTEND:
            return EXTEND, repr(self.directions), repr(self.amount)
        value = self.painted if isinstance(self.painted, dict) else {}
        return REPAINT, str(value.get("mask")), repr(value.get("frame"))


class EditSession:
    """Photos in, requests out; the photo in use is named by the path it is kept at.

    A photo's last plan is kept, so that what was planned for its preview is what is run.

    Args:
        model: a `MaskGIT`, or the holder of the one in use.
        store: where photos are kept.
    """

    def __init__(self, model: Any, store: PhotoStore) -> None:
        self._models: ModelHolder = as_holder(model)
        self.store = store
        self._lock = threading.Lock()
        self._planned: dict[str, tuple[Key, Edit]] = {}  # by path, the latest last

    def open(self, source: Any) -> tuple[dict[str, Any], str]:
        """Take a photo in: what the painter shows, and where the photo is kept.

        Raises:
            RequestError: it cannot be opened.
        """
        photo = open_photo(source)
        # A small square photo is always seen whole: there is nothing to frame.
        whole = photo.width == photo.height <= 2 * int(self._models.current.image_size)
        # An example is kept where it lies: there it outlives any sweep, and a full disk.
        own = isinstance(source, Path) and source in example_photos()
        path = str(source) if own else self.store.save(photo)
        return painter_value(photo) | {"framed": not whole}, path

    def plan(self, task: Task, model: Any = None) -> Edit:
        """Plan an edit, once for a photo, what is painted on it and the frame.

        Args:
            task: what to do.
            model: a `MaskGIT`; None is the one in use.

        Raises:
            RequestError: one sentence that says what to change.
        """
        model = self._models.current if model is None else model
        if task.path is None:
            raise RequestError("Open a photo first, or pick one of the examples.")
        key = (str(model.name), task.key())
        with self._lock:
            before = self._planned.get(task.path)
        if before is not None and before[0] == key:
            return before[1]
        photo = self._photo_of(before) or self.store.load(task.path)
        made = self._made(model, task, photo)
        with self._lock:
            self._planned.pop(task.path, None)
            self._planned[task.path] = (key, made)
            self._drop_oldest()
        return made

    @staticmethod
    def _photo_of(planned: tuple[Key, Edit] | None) -> Image.Image | None:
        """The photo of a plan; None of an extension, whose plan holds a larger canvas."""
        if planned is None or planned[0][1][0] == EXTEND:
            return None
        return planned[1].plan.image

    def _made(self, model: Any, task: Task, photo: Image.Image) -> Edit:
        if task.mode == EXTEND:
            return edit.extend(model, photo, edit_frame.parse_sides(task.directions, task.amount))
        frame = task.painted.get("frame") if isinstance(task.painted, dict) else None
        return edit.repaint(model, photo, painted_mask(task.painted, photo.size), frame)

    def _drop_oldest(self) -> None:
        plans = [made.plan for _, made in self._planned.values()]
        sizes = [plan.pixel_mask.size for plan in plans]
        while len(sizes) > 1 and sum(sizes) > MAX_PLANNED_PIXELS:
            self._planned.pop(next(iter(self._planned)))
            sizes.pop(0)

    def preview(self, task: Task) -> tuple[dict[str, Any], list[float] | None] | None:
        """What an edit would do, while the mask is still being painted.

        Returns:
            The head of a run without steps that shows which cells would be decided, and the frame
            of a repaint as `edit_frame.frame_shares`; None where nothing is painted (inside it),
            or no side is chosen.
        """
        if task.path is None or (task.mode == EXTEND and not task.directions):
            return None
        try:
            made = self.plan(task)
        except edit_frame.NothingPainted:
            return None
        shares = None if task.mode == EXTEND else edit_frame.frame_shares(made.plan)
        return edit.preview_head(self._models.current, made), shares

    def request(
        self,
        model: Any,
        task: Task,
        class_name: Any,
        count: Any,
        seed: Any,
        values: dict[str, Any],
        start_percent: Any = 0,
    ) -> Request:
        """Check all that the tab holds; arguments as `edit.edit_request`.

        Raises:
            RequestError: one sentence that says what to change.
        """
        percent = 0 if task.mode == EXTEND else start_percent
        made = self.plan(task, model)
        return edit.edit_request(model, made, class_name, count, seed, values, percent)
