"""What a Solver is made of: who plays which role, with which adapter, if it fits, and the thread that does the work.

It imports `llama`, `store` and `reasoning`. Begin with cast.py, then loop.py.

cast.py      guide and answerer, opened
wanted.py    what was asked for, and the files behind it; default.py: the model where none is named
adapters.py  which LoRA is on for what; strangers.py: files that were never opened here, tried before they are
budget.py    what fits into memory, estimated before anything is loaded; sizes.py: what a header tells of it
loop.py      one thread owns the engines and serves all questions
votes.py     several answers, and the one that stands
endpoint.py  an OpenAI-compatible endpoint in an engine's place
"""
