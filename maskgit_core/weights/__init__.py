"""Checkpoints of ours and of others: reading, writing, fetching by name, converting.

Imports `networks` and `config`. One more published model is one entry in `known`; one more
published architecture is one entry in `families`.
"""
