"""The command line: one file a command, nothing but arguments and words.

May import everything below it; nothing imports it but `__main__`. One more command is one file
here and one entry in the table of `main`.
"""
