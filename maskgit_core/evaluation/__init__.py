"""Measures of a checkpoint: its reconstructions of held-out photos, and its samples.

Imports everything but `cli` and `benchmark`. One more measure is one function in `measures`.
"""
