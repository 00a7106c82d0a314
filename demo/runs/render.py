"""Pictures of decoding steps: arrays in, arrays or PIL images out. No widgets, no model.

Images are uint8 (B, H, W, 3); cell grids are (B, h, w), one cell per token.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from maskgit_core import pixels
from maskgit_core.data.contact_sheet import contact_sheet

HOLE = (226, 228, 234)  # flat tone under cells that are still masked
HOLE_DOT = (196, 200, 210)
OUTLINE = (37, 99, 235)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Convert images for display.

    Args:
        images: float32 (B, 3, H, W) in [-1, 1].

    Returns:
        uint8 (B, H, W, 3).
    """
    return pixels.to_uint8(images).numpy()


def upsample_cells(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Spread one value per cell over its pixels.

    Args:
        cells: any dtype (B, h, w); h divides height, w divides width.
        height, width: pixels.

    Returns:
        (B, height, width), same dtype.
    """
    _, rows, columns = cells.shape
    if height % rows or width % columns:
        raise ValueError(f"cells {cells.shape[1:]} do not divide an image of {height} x {width}")
    return cells.repeat(height // rows, axis=1).repeat(width // columns, axis=2)


def hide_cells(images: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Paint masked cells in one flat tone, so that no invented pixels are shown or sent.

    Args:
        images: uint8 (B, H, W, 3).
        masked: bool (B, h, w), True = still masked.
    """
    hidden = upsample_cells(masked, *images.shape[1:3])
    return np.where(hidden[..., None], np.array(HOLE, dtype=np.uint8), images)


def draw_pattern(images: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Draw masked cells as a calm dotted pattern: a flat tone with one dot in each cell."""
    shown = hide_cells(images, masked)
    _, height, width, _ = images.shape
    rows, columns = masked.shape[1:]
    cell_y = (np.arange(height) % (height // rows) + 0.5) / (height // rows) - 0.5
    cell_x = (np.arange(width) % (width // columns) + 0.5) / (width // columns) - 0.5
    dot = cell_y[:, None] ** 2 + cell_x[None, :] ** 2 < 0.16**2
    dotted = upsample_cells(masked, height, width) & dot
    return np.where(dotted[..., None], np.array(HOLE_DOT, dtype=np.uint8), shown)


def draw_outlines(
    images: np.ndarray,
    cells: np.ndarray,
    colour: tuple[int, int, int] = OUTLINE,
    thickness: int = 1,
) -> np.ndarray:
    """Draw a border inside each marked cell.

    Args:
        images: uint8 (B, H, W, 3).
        cells: bool (B, h, w), True = outline it.
        colour: RGB.
        thickness: pixels.
    """
    _, height, width, _ = images.shape
    rows, columns = cells.shape[1:]
    in_y = np.arange(height) % (height // rows)
    in_x = np.arange(width) % (width // columns)
    edge_y = (in_y < thickness) | (in_y >= height // rows - thickness)
    edge_x = (in_x < thickness) | (in_x >= width // columns - thickness)
    border = upsample_cells(cells, height, width) & (edge_y[:, None] | edge_x[None, :])
    return np.where(border[..., None], np.array(colour, dtype=np.uint8), images)


def enlarge(images: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every pixel `factor` times both ways: uint8 (B, H * factor, W * factor, 3)."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def split_sheet(sheet: Image.Image, count: int, columns: int) -> np.ndarray:
    """The inverse of `contact_sheet` without gaps: uint8 (count, H, W, 3)."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    width, height = sheet.width // columns, sheet.height // rows
    grid = np.asarray(sheet.convert("RGB"))
    grid = grid.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return grid.reshape(rows * columns, height, width, 3)[:count]


def data_url(image: Image.Image, *, quality: int = 80, lossless: bool = False) -> str:
    """Encode an image as a WebP (lossy) or PNG (lossless) data URL."""
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG")
        kind = "png"
    else:
        image.save(buffer, "WEBP", quality=quality, method=2)
        kind = "webp"
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def open_data_url(url: str) -> Image.Image:
    """Decode an image made by `data_url`."""
    return Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).convert("RGB")


def token_colours(patches: np.ndarray) -> np.ndarray:
    """One RGB colour per code: the mean of its decoded patch, nudged until no two are equal.

    Args:
        patches: uint8 (K, p, p, 3).

    Returns:
        uint8 (K, 3), all rows different (K up to 16 million).
    """
    means = np.rint(patches.reshape(len(patches), -1, 3).mean(axis=1)).astype(np.int64)
    taken: set[int] = set()
    colours = np.empty((len(patches), 3), dtype=np.uint8)
    for index, (red, green, blue) in enumerate(means):
        key = int(red << 16 | green << 8 | blue)
        while key in taken:
            key = (key + 1) % (1 << 24)
        taken.add(key)
        colours[index] = (key >> 16, key >> 8 & 255, key & 255)
    return colours


def patch_atlas(patches: np.ndarray, side: int = 8) -> Image.Image:
    """All decoded patches in one square-ish picture, in order of their code.

    Args:
        patches: uint8 (K, p, p, 3).
        side: pixels a side of one patch in the atlas; larger patches are shrunk to it.
    """
    columns = int(np.ceil(np.sqrt(len(patches))))
    atlas = contact_sheet(patches, columns)
    if patches.shape[1] > side:
        rows = -(-len(patches) // columns)
        atlas = atlas.resize((columns * side, rows * side), Image.Resampling.BOX)
    return atlas
