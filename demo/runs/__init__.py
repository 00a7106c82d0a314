"""From what a visitor typed to a request, and from decoded steps to plain data. No widgets.

Imports `serving`, `hardening`, `settings` and `maskgit_core`; never `tabs`, which build on it. One
more kind of run is one file here with a parser that returns a `serving.request.Request`; `follow`
decodes it and yields what the page shows.
"""
