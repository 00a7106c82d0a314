"""How long a model takes on this machine, timed by `torch.utils.benchmark`.

Imports everything but `cli`; nothing imports it but the command. One more part is one entry of
`run.PARTS`.
"""
