"""Speed and memory of the engine, and the fastest settings for a machine.

It imports `llama`, `store` and `host`. Begin with compare.py.

compare.py  our engine against llama-cpp-python's, in turn
measure.py  one measurement, in a process of its own
search.py   the fastest settings; probe.py: what a larger batch costs
"""
