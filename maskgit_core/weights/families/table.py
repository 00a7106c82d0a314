"""The published families of weights: one entry each, in the order in which a file is tried."""

from __future__ import annotations

from torch import nn

from maskgit_core.weights.families.family import Family
from maskgit_core.weights.families.maskbit import MASKBIT, MASKBIT_TOKENIZER
from maskgit_core.weights.families.sampling import PublishedSampling
from maskgit_core.weights.families.tokenizers import VQGAN_FAMILIES
from maskgit_core.weights.families.transformers import BERT, HALTON, V1

# A MaskBit file has names that a v1.0 file and one of open-muse have too.
TRANSFORMER_FAMILIES: tuple[Family, ...] = (MASKBIT, HALTON, V1, BERT)
TOKENIZER_FAMILIES: tuple[Family, ...] = (MASKBIT_TOKENIZER, *VQGAN_FAMILIES)
FAMILIES = (*TRANSFORMER_FAMILIES, *TOKENIZER_FAMILIES)


def published_sampling(transformer: nn.Module) -> PublishedSampling:
    """Return how the authors sample a converted network, by its size and resolution.

    Raises:
        ValueError: a network of no published family.
    """
    for family in TRANSFORMER_FAMILIES:
        if family.network is type(transformer) and family.sampling is not None:
            return family.sampling(transformer.config)
    raise ValueError(f"no published family has a {type(transformer).__name__}")
