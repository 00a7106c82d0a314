"""What strangers may send, and what is kept of it and for how long.

Imports nothing else of the page.
"""
