"""Who computes, and in which order: the queue, fairness between visitors, the models in memory.

Imports `runs` and `maskgit_core`.
"""
