"""What is known of published weights: files, size, how well and how they are sampled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from maskgit_core.config import SamplingConfig

CONVERTED_FORM = 2  # raised when the conversion changes, so that cached results are made anew
# In the place of a hash: nobody has told us one, so a file that was replaced cannot be told apart.
NOT_VERIFIED = "not verified"
GPU_PARAMS = 300  # millions of a transformer, from which on a graphics card is wanted


@dataclass(frozen=True)
class PublishedFile:
    """A published weight file.

    Attributes:
        repo: owner/name on the Hugging Face Hub; empty where `url` says where the file is.
        path: of the file in the repository, or its name.
        sha256: hexadecimal hash of the content, or NOT_VERIFIED; None, which the table must not
            have, where nobody looked.
        size: in bytes.
        about: whether `size` is rounded or estimated.
        revision: branch, tag or commit to ask for.
        commit: first digits of the commit at which size and hash were read, where known.
        url: address of a file that is not on the Hub.
    """

    repo: str
    path: str
    sha256: str | None
    size: int
    about: bool = False
    revision: str = "main"
    commit: str = ""
    url: str = ""

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rpartition("/")[2]

    @property
    def verified(self) -> bool:
        """Whether the content is checked against a hash that stands here."""
        return self.sha256 not in (None, NOT_VERIFIED)


@dataclass(frozen=True)
class KnownWeights:
    """Published weights that load by name.

    Attributes:
        name: what to load them by.
        title: short name for people.
        good_for: what to choose them for, in a few plain words.
        tokenizer, transformer: their files.
        licence: of the published weights' project.
        image_size: pixels a side.
        params: millions of parameters of the transformer.
        tokenizer_params: millions of parameters of the tokenizer.
        fid: published Frechet Inception distance; lower is better.
        sampling: the authors' best settings; guidance_scale is s = 1 + w for their w.
        source: whose server the files are on, where that is not the Hub.
    """

    name: str
    title: str
    good_for: str
    tokenizer: PublishedFile
    transformer: PublishedFile
    licence: str
    image_size: int
    params: float
    tokenizer_params: float
    fid: float
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    source: str = ""

    @property
    def repo(self) -> str:
        """Repository of the transformer; empty where it is not on the Hub."""
        return self.transformer.repo

    @property
    def revision(self) -> str:
        """Revision of the transformer."""
        return self.transformer.revision

    @property
    def files(self) -> tuple[PublishedFile, PublishedFile]:
        """Tokenizer and transformer."""
        return self.tokenizer, self.transformer

    @property
    def verified(self) -> bool:
        """Whether both files are checked against hashes that stand here."""
        return all(file.verified for file in self.files)

    @property
    def wants_gpu(self) -> bool:
        """Whether an image takes minutes without a graphics card."""
        return self.params >= GPU_PARAMS

    @property
    def steps(self) -> int:
        """Decoding steps of the published number."""
        return self.sampling.num_steps

    @property
    def guidance(self) -> float:
        """Guidance scale s of the published number; 1 is off."""
        return self.sampling.guidance_scale

    @property
    def download_bytes(self) -> int:
        """Bytes of both files as they travel; most of them hold an optimizer's state too."""
        return sum(file.size for file in self.files)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the converted weights in float32."""
        return round(4e6 * (self.params + self.tokenizer_params))

    @property
    def key(self) -> str:
        """Short hash of everything that the converted weights depend on."""
        content: dict[str, Any] = {
            "form": CONVERTED_FORM,
            "files": [[file.repo, file.path, file.revision, file.sha256] for file in self.files],
            "sampling": asdict(self.sampling),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def size_words(size: int) -> str:
    """Return a number of bytes for people, in decimal units as the Hub has them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
