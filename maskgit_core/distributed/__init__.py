"""Several processes that train one network: who is who, sums over them, sharded weights.

Imports nothing else of the package. A single process needs none of it.
"""
