"""What has weights: the VQ tokenizers and the masked transformers, and the blocks they share.

Imports `config` only. One more kind of network is a module here with its frozen settings and
one entry in the registry of kinds.
"""
