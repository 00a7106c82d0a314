"""Token grids of a data set, extracted once: written in shards, read where they lie.

A shard is a safetensors file with the tokens of some thousand photos. All ranks of a run write
shards side by side; what an interrupted extraction has finished is found again. Data that fits one
shard is one file. Shards are mapped into memory, so only what a step draws is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from maskgit_core.data.fingerprints import hash_of_networks, hash_of_rows, hash_of_values
from maskgit_core.data.photos import Photos
from maskgit_core.distributed.group import patience, rank, size
from maskgit_core.files import CheckpointError, write_atomically
from maskgit_core.pixels import from_uint8

ENCODE_BATCH = 64
SHARD_PHOTOS = 16384
SHORT_CODES = 2**15  # of a codebook whose tokens fit 16 bits

logger = logging.getLogger(__name__)


class ShardedTokens:
    """The rows of several token tensors, one after another.

    Args:
        shards: integer (num, views, N), of equal views and N.
    """

    def __init__(self, shards: Sequence[Tensor]) -> None:
        self.shards = list(shards)
        ends = torch.tensor([len(shard) for shard in self.shards]).cumsum(0)
        self.ends = ends
        self.shape = torch.Size((int(ends[-1]), *self.shards[0].shape[1:]))

    def __len__(self) -> int:
        """Number of photos."""
        return self.shape[0]

    def __getitem__(self, key: tuple[Tensor | slice, Tensor | int]) -> Tensor:
        """Return integer (B, N) of rows int64 (B,) and views, int64 (B,) or one for all."""
        rows, views = key
        rows = torch.arange(len(self))[rows]
        views = torch.as_tensor(views).expand(len(rows))
        found = torch.empty(len(rows), self.shape[2], dtype=self.shards[0].dtype)
        owners = torch.bucketize(rows, self.ends, right=True)
        for owner in owners.unique().tolist():
            at = owners == owner
            shard = self.shards[owner]
            start = int(self.ends[owner]) - len(shard)
            found[at] = shard[rows[at] - start, views[at]]
        return found


@dataclass(frozen=True)
class TokenData:
    """Token grids of a data set.

    Attributes:
        tokens: integer (num, views, N): crops and mirror images of each photo; indexed by rows
            and views together.
        labels: int64 (num,).
        classes: names, label by label.
    """

    tokens: Tensor | ShardedTokens
    labels: Tensor
    classes: list[str]


def crop_corners(slack: int) -> list[tuple[int, int]]:
    """Return the (top, left) corners of the crops that are encoded: the centre, then the rest."""
    if slack == 0:
        return [(0, 0)]
    centre = slack // 2
    return [(centre, centre), (0, 0), (0, slack), (slack, 0), (slack, slack)]


def shard_paths(cache: Path, num_photos: int) -> list[Path]:
    """Return the files of a data set: `cache` itself, or some named after it."""
    count = -(-num_photos // SHARD_PHOTOS)
    if count <= 1:
        return [cache]
    return [
        cache.with_name(f"{cache.stem}-{index:05d}-of-{count:05d}{cache.suffix}")
        for index in range(count)
    ]


@torch.no_grad()
def extract_tokens(
    tokenizer: nn.Module,
    photos: Photos,
    *,
    crops: int = 1,
    cache: Path | None = None,
    progress: Callable[[Sequence[Tensor]], Sequence[Tensor]] = lambda batches: batches,
) -> TokenData:
    """Encode every photo once, each crop together with its mirror image.

    With a process group all its processes call this together.

    Args:
        tokenizer: with `config.image_size` and `encode_to_tokens`.
        photos: packed photos.
        crops: how many crops a photo, in 1..5, the centre first; 1 where photos have no margin.
        cache: a safetensors file (or, of many photos, several of similar names) that is read
            where it fits the tokenizer and the photos, and written where not.
        progress: wraps the list of the batches that this process encodes.

    Returns:
        The token grids; views are ordered crop by crop, the mirror image second.

    Raises:
        CheckpointError: the disk is full (finished shards are kept), or not the same for all ranks.
    """
    image_size = tokenizer.config.image_size
    corners = crop_corners(photos.pixels.shape[1] - image_size)[:crops]
    rows = torch.arange(len(photos.labels))
    if cache is None:
        parts = [_encoded(tokenizer, photos, part, corners) for part in rows.split(ENCODE_BATCH)]
        return TokenData(torch.cat(parts), photos.labels, photos.classes)
    paths, network = shard_paths(cache, len(rows)), hash_of_networks(tokenizer)
    with patience():
        keys, batches = {}, []
        for index in range(rank(), len(paths), size()):
            own = rows.split(SHARD_PHOTOS)[index]
            keys[index] = _made_from(network, photos, own, corners)
            if _read(paths[index], keys[index]) is None:
                batches += own.split(ENCODE_BATCH)
        parts = []
        for part in progress(batches):
            parts.append(_encoded(tokenizer, photos, part, corners))
            index, end = int(part[0]) // SHARD_PHOTOS, int(part[-1]) + 1
            if end % SHARD_PHOTOS == 0 or end == len(rows):
                _write(paths[index], torch.cat(parts), keys[index])
                parts = []
    shards: list[Tensor] = []
    for path in paths:
        shard = _read(path, None)
        if shard is None:
            raise CheckpointError(f"{path} cannot be read; its folder must be shared by all ranks")
        shards.append(shard)
    tokens = shards[0] if len(shards) == 1 else ShardedTokens(shards)
    return TokenData(tokens, photos.labels, photos.classes)


def _encoded(
    tokenizer: nn.Module, photos: Photos, rows: Tensor, corners: list[tuple[int, int]]
) -> Tensor:
    """Return the tokens, int16 or int32 (B, views, N), of the photos at rows int64 (B,)."""
    config = tokenizer.config
    device = next(tokenizer.parameters()).device
    pixels, side = photos.pixels[rows.numpy()], config.image_size
    views = []
    for top, left in corners:
        images = from_uint8(pixels[:, top : top + side, left : left + side], device)
        for view in (images, images.flip(-1)):
            laid_out = view.contiguous(memory_format=torch.channels_last)
            views.append(tokenizer.encode_to_tokens(laid_out).flatten(1).cpu())
    short = config.codebook_size <= SHORT_CODES
    return torch.stack(views, dim=1).to(torch.int16 if short else torch.int32)


def _write(path: Path, tokens: Tensor, key: str) -> None:
    write_atomically(path, lambda part: save_file({"tokens": tokens}, part, metadata={"key": key}))


def _read(path: Path, key: str | None) -> Tensor | None:
    """Return the stored tokens; None where they are missing, damaged or of something else."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            if key is not None and (file.metadata() or {}).get("key") != key:
                return None
            return file.get_tensor("tokens")
    except (SafetensorError, OSError, ValueError) as error:
        logger.warning("encoding photos again, %s is damaged: %s", path.name, error)
        return None


def _made_from(tokenizer: str, photos: Photos, rows: Tensor, corners: list[tuple[int, int]]) -> str:
    """Return a hash of a tokenizer, given as its own, of photos and of the crops of them."""
    pixels = hash_of_rows(photos.pixels[rows[0] : rows[-1] + 1])
    return hash_of_values(tokenizer, pixels, corners)
