"""The two stages of training, their loop, and what keeps a run from harm.

Imports `networks`, `data`, `devices`, `distributed` and `weights`. One more preset is one file
in `presets`; one more loss is one function in `losses`.
"""
