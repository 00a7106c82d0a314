"""The tabs: widgets and their wiring, one file a tab.

Imports `runs`, `serving` and `settings`. One more tab is one file here and one line in
`ui._build_tabs`.
"""
