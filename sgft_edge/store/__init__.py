"""The models known by name: their files, digests and headers, and fetching them. Works where llama.cpp does not load.

It imports `host`, and of `reasoning` the settings. Begin with manifest.py.

manifest.py  the package's and the user's entries
places.py    where a model's file lies
digests.py   SHA-256 of files, remembered
header.py    GGUF headers, read within the file's bounds; splits.py: models in several files
pull.py      fetching and checking; parts.py: out of wheels, in parts; delivery.py: what a source brings
"""
