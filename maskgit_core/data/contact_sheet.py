"""Contact sheets: many small pictures on one."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor


def contact_sheet(
    images: np.ndarray | Tensor,
    columns: int,
    *,
    gap: int = 0,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """Return one RGB picture with the images side by side, row by row.

    Args:
        images: uint8 (B, H, W, 3), see `pixels.to_uint8`.
        columns: images a row, if there are so many.
        gap: pixels between two images.
        background: RGB of the gaps and of the empty places.
    """
    count, height, width, _ = images.shape
    columns = max(1, min(columns, count))
    size = (columns * (width + gap) - gap, -(-count // columns) * (height + gap) - gap)
    sheet = Image.new("RGB", size, background)
    for index, image in enumerate(np.asarray(images)):
        row, column = divmod(index, columns)
        sheet.paste(Image.fromarray(image), (column * (width + gap), row * (height + gap)))
    return sheet
