"""How this installation is, and what of it can be carried elsewhere.

It imports `solving`, `llama`, `store` and `host`. Begin with diagnosis.py.

diagnosis.py  what is there; advice.py: what to do about it
wheels.py     wheels of what is installed; carried/: the scripts of a bundle
"""
