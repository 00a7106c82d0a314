"""Photos in folders of one class each, and the shards of tokens made of them.

Imports the root's modules only. One more source of photos is one function that ends in a folder
that `photos` can pack.
"""
