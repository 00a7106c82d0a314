"""Speed and memory of a model on this machine, beside a plain loop that does the same work.

Imports everything but `cli`; nothing imports it but the command.
"""
