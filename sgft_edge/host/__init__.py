"""This computer: what it has, where a user's files lie, and how files and processes are kept whole.

It imports `errors` alone.

machine.py  cores and memory
files.py    the user's folders; files that appear whole; TOML
folders.py  folders that appear whole
locks.py    one process at a time
child.py    modules of the package that run in processes of their own
journal.py  JSONL results that grow, and where an interrupted run goes on
"""
