"""The two stages of training, their loop, and what keeps a run from harm.

Imports `networks`, `data`, `losses`, `devices`, `distributed` and `weights`; `results`, the end of
the train command, `pipeline` and `evaluation` too. One more setting is one field in `settings`, its
option and help come from there; one more preset is one file in `presets`; one more stage is a class
with the methods of `loop.Stage`.
"""
