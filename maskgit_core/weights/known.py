"""The published class-conditional weights: where they are and what their authors say of them.

One entry a model. FIDs are the authors' own, for 50,000 images of the ImageNet classes. Sizes and
hashes are those of the Hub's pages of the files, read in November 2026; what could not be read
there is marked: `NOT_VERIFIED` in the place of a hash, `about` for a size that was rounded.
"""

from __future__ import annotations

from maskgit_core.weights.families.sampling import (
    google_sampling,
    halton_sampling,
    maskbit_sampling,
    v1_sampling,
)
from maskgit_core.weights.published import NOT_VERIFIED, KnownWeights, PublishedFile

TOKENIZER_PARAMS = {"llamagen": 71.9, "taming": 72.1, "google": 54.5, "maskbit": 54.5}
BUCKET = "https://storage.googleapis.com/maskgit-public/checkpoints/"
TOKEN_PIXELS = 16  # pixels a side of a token, in all of them


# Four bytes for each of its 71,883,403 parameters; the Hub's page says 287 MB.
_LLAMAGEN = PublishedFile(
    "FoundationVision/LlamaGen",
    "vq_ds16_c2i.pt",
    "109aa8afb2cf3761eec23cdc8644154cb498f5ab7eef2a35264d25e5e0499f7d",
    287_533_612,
    about=True,
    commit="81e41139",
)
_V1_REPO, _V1_FOLDER = "llvictorll/Maskgit-pytorch", "pretrained_maskgit"
_V1_TOKENIZER = PublishedFile(
    _V1_REPO,
    f"{_V1_FOLDER}/VQGAN/last.ckpt",
    "e38a3aed8c86e8d47436f611325b3a23888cab70a0cc56c13cd84e8d4aab6e71",
    957_954_257,
)


def _halton(
    size: int,
    label: str,
    params: float,
    fid: float,
    width: int,
    good_for: str,
    file_bytes: int,
    sha256: str = NOT_VERIFIED,
    commit: str = "",
) -> KnownWeights:
    path = f"ImageNet_{size}_{label}.pth"
    return KnownWeights(
        name=f"imagenet-{size}-{label}",
        title=f"ImageNet {size}, {label}",
        good_for=good_for,
        tokenizer=_LLAMAGEN,
        transformer=PublishedFile(
            "llvictorll/Halton-MaskGIT", path, sha256, file_bytes, about=True, commit=commit
        ),
        licence="MIT",
        image_size=size,
        params=params,
        tokenizer_params=TOKENIZER_PARAMS["llamagen"],
        fid=fid,
        sampling=halton_sampling(size // TOKEN_PIXELS, width).usual,
    )


def _v1(
    size: int,
    params: float,
    fid: float,
    good_for: str,
    file_bytes: int,
    sha256: str,
) -> KnownWeights:
    path = f"{_V1_FOLDER}/MaskGIT/MaskGIT_ImageNet_{size}.pth"
    return KnownWeights(
        name=f"maskgit-v1-{size}",
        title=f"MaskGIT in PyTorch, {size}",
        good_for=good_for,
        tokenizer=_V1_TOKENIZER,
        transformer=PublishedFile(_V1_REPO, path, sha256, file_bytes),
        licence="MIT",
        image_size=size,
        params=params,
        tokenizer_params=TOKENIZER_PARAMS["taming"],
        fid=fid,
        sampling=v1_sampling(size // TOKEN_PIXELS).usual,
    )


def _google(size: int, params: float, fid: float, good_for: str) -> KnownWeights:
    # No page tells sizes or hashes: four bytes a parameter is what the networks come to.
    tokenizer, transformer = (
        PublishedFile("", name, NOT_VERIFIED, round(4e6 * millions), about=True, url=BUCKET + name)
        for name, millions in (
            (f"tokenizer_imagenet{size}_checkpoint", TOKENIZER_PARAMS["google"]),
            (f"maskgit_imagenet{size}_checkpoint", params),
        )
    )
    return KnownWeights(
        name=f"google-{size}",
        title=f"Google's MaskGIT, {size}",
        good_for=good_for,
        tokenizer=tokenizer,
        transformer=transformer,
        licence="Apache-2.0",
        image_size=size,
        params=params,
        tokenizer_params=TOKENIZER_PARAMS["google"],
        fid=fid,
        sampling=google_sampling(size // TOKEN_PIXELS).usual,
        source="Google's public storage bucket maskgit-public",
    )


def _maskbit(
    bits: int,
    params: float,
    fid: float,
    tokenizer_bytes: int,
    sha256: str = NOT_VERIFIED,
    commit: str = "",
    good_for: str = "hardly worse than 14 bits",
) -> KnownWeights:
    tokenizer, generator = (f"maskbit_{part}_{bits}bit" for part in ("tokenizer", "generator"))
    rounded = tokenizer_bytes % 10**6 == 0  # the page of the file has megabytes only
    return KnownWeights(
        name=f"maskbit-{bits}bit",
        title=f"MaskBit, {bits} bits",
        good_for=good_for,
        tokenizer=PublishedFile(
            f"markweber/{tokenizer}",
            f"{tokenizer}.bin",
            sha256,
            tokenizer_bytes,
            rounded,
            commit=commit,
        ),
        # Four bytes a parameter; no page tells size or hash.
        transformer=PublishedFile(
            f"markweber/{generator}", f"{generator}.bin", NOT_VERIFIED, round(4e6 * params), True
        ),
        licence="Apache-2.0, for research",
        image_size=256,
        params=params,
        tokenizer_params=TOKENIZER_PARAMS["maskbit"],
        fid=fid,
        sampling=maskbit_sampling(bits).usual,
    )


KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    known.name: known
    for known in (
        _halton(
            *(256, "tiny", 23.0, 10.2, 384),
            "the quickest with 1,000 classes; good enough on two processor cores",
            # what a network of this size comes to with its optimizer's state; the page says 276 MB
            276_471_643,
        ),
        _halton(
            *(256, "small", 69.3, 6.40, 512),
            "better pictures than tiny, at three times the work",
            832_000_000,
            "760b9937d16157e7e518fbf405efe281552933242b552d5e8262cb10507fb0e2",
            "ffc7fd4c",
        ),
        _halton(
            *(256, "base", 142.2, 4.17, 768),
            "the best of the three at 256 pixels",
            1_710_000_000,
            "7fe25cb80b05743e8b42dacc61d88792a9ab5217d6bd756bef28821e0a5fc68f",
        ),
        _halton(
            *(384, "small", 69.5, 6.11, 512),
            "larger pictures at moderate work",
            834_000_000,
            "76bad1f175083210e27f794674b27efd54266b5b90471a383322c8840749ae5d",
        ),
        _halton(
            *(384, "base", 142.5, 4.15, 768),
            "larger and better pictures",
            1_710_000_000,
            "3e707c8fcf75ddf73d812de04d2561d3ff69f52f21c08e079e0fa4d0b596fcd6",
        ),
        _halton(
            *(384, "large", 480.0, 2.59, 1024),
            "the best pictures of this family",
            1_920_000_000,
        ),
        _v1(
            *(256, 174.2, 6.80),
            "the paper's own way of choosing, in few steps",
            2_090_306_069,
            "74b38fa16c92da3db79f9aac3c9d0d2ef5cb6ea283c48908213f10d786304462",
        ),
        _v1(
            *(512, 176.3, 7.26),
            "the largest pictures; slow without a graphics card",
            2_116_055_573,
            "fa1e1286451602c30d1608485797f63f27c8cc9688346fa0f1315952b46b3c03",
        ),
        _google(256, 172.5, 6.06, "the paper's own weights, without guidance"),
        _google(512, 173.0, 7.32, "the paper's own weights, the largest pictures"),
        _maskbit(10, 304.7, 1.68, 218_000_000),
        _maskbit(
            *(12, 304.8, 1.65, 218_000_000),
            *("3dde024443d68a10295a518d9e851f61e0527c85f1197aa41405237153182170", "7027be7"),
        ),
        _maskbit(
            *(14, 304.9, 1.62, 219_000_000),
            *("ca9209fbd55ec467c7151b1f863b99ba2675a5229f6f86f27cfe79152671f310", "67eb4c7"),
            "the best pictures of all",
        ),
        _maskbit(
            *(16, 305.2, 1.64, 222_258_958),
            *("44e3ff7c3bf15eda4e1e25586ff8f657be9291d5e2bf3b755505394e11765b06", "cf17f8e"),
        ),
        _maskbit(
            *(18, 305.7, 1.67, 236_979_982),
            *("6c672c2508e14c4d7cd8621c1cb8939610478632725bb26521cf3c4bb6fc3f78", "825f2ea"),
            "the sharpest tokenizer",
        ),
    )
}
