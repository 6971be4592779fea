"""From problems to a guide: checked solution guidance data, and LoRA adapters trained on them.

Everything here reads the prompts of `sgft_edge.reasoning.prompts` and gives llama.cpp's own token ids to the model.
"""
