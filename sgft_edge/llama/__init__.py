"""The engine on llama.cpp. The only room that imports `llama_cpp`, but for the contender in `measuring`.

It imports `store`, and of `reasoning` the types and settings. Begin with engine.py.

engine.py     sequences, batches, forced text, what a KV cache holds
model.py context.py  llama.cpp's objects: weights and adapters, KV caches and grammars; library.py: its start and log
role.py       a model in a role, and its turn at a question
tokens.py     prompts as token ids; templates.py: chat templates, rendered in sandbox.py
sampling.py   greedy, temperature, top-p, min-p; a grammar checked after the choice
matching.py   JSON schemas as masks over tokens; schema_trial.py: tried in a process of its own
model_trial.py files tried in a process of its own, since llama.cpp ends its process on some
lookup.py     guesses at the next tokens, from what stood in the text before
prefixes.py   states of fixed prompt prefixes, on disk
device.py     CPU and GPUs; build.py: how llama.cpp was built; tuning.py: the settings that were fastest here
"""
