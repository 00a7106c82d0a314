"""One file an upload, and nothing left of an upload that broke off.

Takes the place of Gradio 6.31's parser, which takes a thousand files at once and keeps the part of
a file that arrived when its sender left or the disk was full.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gradio import route_utils, routes

MOST_FIELDS = 4

_Parser = route_utils.GradioMultiPartParser


class OneFileParser(_Parser):
    """The parser with bounds of our own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options |= {"max_files": 1, "max_fields": MOST_FIELDS}
        super().__init__(*arguments, **options)

    async def parse(self) -> Any:
        """Parse, and remove what was written where that fails in any way."""
        try:
            return await super().parse()
        except BaseException:
            for file in self._files_to_close_on_error:
                with contextlib.suppress(OSError, ValueError):
                    file.close()
                with contextlib.suppress(OSError):
                    Path(file.name).unlink()
            raise


def bound_uploads() -> None:
    """Put the parser in place; doing it again changes nothing."""
    route_utils.GradioMultiPartParser = OneFileParser  # type: ignore[misc]
    routes.GradioMultiPartParser = OneFileParser  # type: ignore[misc]
