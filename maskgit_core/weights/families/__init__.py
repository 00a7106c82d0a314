"""The published families of weights, known by their names of tensors and read from their shapes.

Imports `networks` and `weights.rules`. One more family is one entry in `table`;
how its authors sample it, by size and resolution, is one in `sampling`.
"""
