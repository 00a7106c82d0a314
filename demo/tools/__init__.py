"""Programs for the owner of a page: the load test and the upload to a Space.

Imports everything of the page; nothing imports it.
"""
