"""Where and how fast networks compute: number types, prepacked weights, threads, memory.

Imports `networks` only. Whatever stands here changes how soon a result is there, never which: a
measured line in the benchmark pays for each mechanism.
"""
