"""From what training wrote to what the runtime loads: merge, GGUF, importance matrix, quantization, proof.

`export_gguf` is the command. Each step is a function in a file of its own; data flows one way:

    adapter folder ─► adapter ─┬─► merge ─► model_gguf ─► quantize ─┐
    base (folder, hub, GGUF) ──┴─► lora_gguf ───────────────────────┴─► verify ─► card ─► export folder
"""
