"""The published class-conditional weights: where they are and what their authors say of them.

Numbers are the authors' own, for 50,000 images of the ImageNet classes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from maskgit_core.config import SamplingConfig

CONVERTED_FORM = 1  # raised when the conversion changes, so that cached results are made anew
TOKENIZER_PARAMS = {"llamagen": 71.9, "taming": 72.1, "google": 54.5}


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face Hub, or one that the user has to bring.

    Attributes:
        repo: owner/name; empty where the file is not on the Hub.
        path: of the file in the repository.
        revision: branch, tag or commit.
        sha256: hexadecimal hash of the content, where it is known.
    """

    repo: str
    path: str
    revision: str = "main"
    sha256: str | None = None

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class KnownWeights:
    """Published weights that load by name.

    Attributes:
        name: what to load them by.
        tokenizer, transformer: their files.
        licence: of the published weights' project.
        image_size: pixels a side.
        params: millions of parameters of the transformer.
        tokenizer_params: millions of parameters of the tokenizer.
        fid: published Frechet Inception distance; lower is better.
        sampling: the authors' best settings; guidance_scale is s = 1 + w for their w.
        source: where to get files that are not on the Hub.
    """

    name: str
    tokenizer: HubFile
    transformer: HubFile
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
    def files(self) -> tuple[HubFile, HubFile]:
        """Tokenizer and transformer."""
        return self.tokenizer, self.transformer

    @property
    def steps(self) -> int:
        """Decoding steps of the published number."""
        return self.sampling.num_steps

    @property
    def guidance(self) -> float:
        """Guidance scale s of the published number; 1 is off."""
        return self.sampling.guidance_scale

    @property
    def download_megabytes(self) -> int:
        """Megabytes of both files in float32; a file that holds training state is larger."""
        return round(4 * (self.params + self.tokenizer_params))

    @property
    def key(self) -> str:
        """Short hash of everything that the converted weights depend on."""
        content: dict[str, Any] = {
            "form": CONVERTED_FORM,
            "files": [asdict(file) for file in self.files],
            "sampling": asdict(self.sampling),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _halton(size: int, label: str, params: float, fid: float, weight: float) -> KnownWeights:
    return KnownWeights(
        name=f"imagenet-{size}-{label}",
        tokenizer=HubFile("FoundationVision/LlamaGen", "vq_ds16_c2i.pt"),
        transformer=HubFile("llvictorll/Halton-MaskGIT", f"ImageNet_{size}_{label}.pth"),
        licence="MIT",
        image_size=size,
        params=params,
        tokenizer_params=TOKENIZER_PARAMS["llamagen"],
        fid=fid,
        sampling=SamplingConfig(
            num_steps=32,
            order="halton",
            schedule="arccos",
            guidance_scale=1 + weight,
            guidance_schedule="constant",
        ),
    )


def _v1(
    size: int, params: float, fid: float, steps: int, weight: float, noise: float
) -> KnownWeights:
    folder, repo = "pretrained_maskgit", "llvictorll/Maskgit-pytorch"
    return KnownWeights(
        name=f"maskgit-v1-{size}",
        tokenizer=HubFile(repo, f"{folder}/VQGAN/last.ckpt"),
        transformer=HubFile(repo, f"{folder}/MaskGIT/MaskGIT_ImageNet_{size}.pth"),
        licence="MIT",
        image_size=size,
        params=params,
        tokenizer_params=TOKENIZER_PARAMS["taming"],
        fid=fid,
        # What this release calls arccos is close to the cosine schedule here.
        sampling=SamplingConfig(
            num_steps=steps,
            schedule="cosine",
            guidance_scale=1 + weight,
            guidance_schedule="linear",
            choice_temperature=noise,
        ),
    )


def _google(size: int, params: float, fid: float, steps: int) -> KnownWeights:
    return KnownWeights(
        name=f"google-{size}",
        tokenizer=HubFile("", f"tokenizer_imagenet{size}_checkpoint"),
        transformer=HubFile("", f"maskgit_imagenet{size}_checkpoint"),
        licence="Apache-2.0",
        image_size=size,
        params=params,
        tokenizer_params=TOKENIZER_PARAMS["google"],
        fid=fid,
        sampling=SamplingConfig(num_steps=steps, guidance_scale=1.0, guidance_schedule="constant"),
        source="the folder checkpoints of Google's public storage bucket maskgit-public",
    )


KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    known.name: known
    for known in (
        _halton(256, "tiny", 23.0, 10.2, 1.5),
        _halton(256, "small", 69.3, 6.40, 1.0),
        _halton(256, "base", 142.2, 4.17, 0.7),
        _halton(384, "small", 69.5, 6.11, 1.0),
        _halton(384, "base", 142.5, 4.15, 0.7),
        _halton(384, "large", 480.0, 2.59, 0.5),
        _v1(256, 174.2, 6.80, 8, 3.0, 4.5),
        _v1(512, 176.3, 7.26, 15, 2.8, 7.0),
        _google(256, 172.5, 6.06, 8),
        _google(512, 173.0, 7.32, 12),
    )
}
