"""Checkpoints of ours and of others: reading, writing, fetching by name, converting.

Imports `networks`, `config` and the Hub's client. One more published model is one entry in `known`,
with sizes and hashes as `records` has them; one more published architecture is one entry in
`families`; one more file format is one reader in `formats`.
"""
