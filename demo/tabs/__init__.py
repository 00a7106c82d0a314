"""The tabs: widgets and their wiring, one file a tab.

Imports `runs` and `serving`. One more tab is one file here and one line in `ui`.
"""
