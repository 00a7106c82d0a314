"""One run each: a request in, plain data out. No widgets.

Imports `maskgit_core`. One more kind of run is one file here with a frozen request, its parser
and its run.
"""
