"""What the header of a model's file tells of the memory that the model takes; no weights are read.

The metadata keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from sgft_edge.store.header import Tensor, read_header
from sgft_edge.store.splits import parts, size_of

_F16, _F32 = 2, 4  # bytes
_Q4_0, _Q8_0, _Q2_K, _Q4_K, _Q5_K, _Q6_K, _IQ4_NL, _MXFP4 = 2, 8, 10, 12, 13, 14, 20, 39
_BLOCKS = {  # weights of a block, and its bytes
    _Q4_0: (32, 18),
    _Q8_0: (32, 34),
    _Q2_K: (256, 84),
    _Q4_K: (256, 144),
    _Q5_K: (256, 176),
    _Q6_K: (256, 210),
    _IQ4_NL: (32, 18),
    _MXFP4: (32, 17),
}
_X86 = {_Q4_0, _Q2_K, _Q4_K, _IQ4_NL, _MXFP4}
_REPACKED = _X86 if platform.machine().lower() in ("x86_64", "amd64", "i686") else set(_BLOCKS)


@dataclass(frozen=True, slots=True)
class Sizes:
    """A model file in bytes and tokens; 0 stands for what its header does not tell.

    `repacked` are the bytes of quantized matrices that llama.cpp copies into an order that suits the CPU: those that
    it may copy, whether or not this CPU wants them so (`ggml_repack_get_optimal_repack_type` in ggml-cpu/repack.cpp).
    `cell` is what a token takes in the KV cache, in float16, and `row` the intermediate results that llama.cpp keeps
    at once for a token of a batch: three rows of the feed-forward network and four of the residual stream, as measured
    with models of the Llama and Qwen2 families.
    """

    file: int
    repacked: int
    vocabulary: int
    window: int
    cell: int
    row: int

    @classmethod
    def read(cls, path: Path) -> Sizes:
        """Raises `ModelError` for a file that is no GGUF file or damaged, and for a split model that lacks a part."""
        headers = [read_header(part) for part in parts(path)]
        header = headers[0]
        arch = header.text("general.architecture")

        def numbers(key: str) -> list[int]:
            return header.numbers(f"{arch}.{key}")

        layers, width = max(numbers("block_count")), max(numbers("embedding_length"))
        heads = numbers("attention.head_count")
        kv_heads = numbers("attention.head_count_kv") if any(numbers("attention.head_count_kv")) else heads
        head = width // max(*heads, 1)
        keys = max(numbers("attention.key_length")) or head
        values = max(numbers("attention.value_length")) or head
        experts = max(numbers("expert_feed_forward_length")) * max(numbers("expert_used_count"))
        feed_forward = max(*numbers("feed_forward_length"), experts)
        all_kv_heads = sum(kv_heads) if len(kv_heads) > 1 else layers * kv_heads[0]
        return cls(
            file=size_of(path),
            repacked=sum(_bytes(tensor) for one in headers for tensor in one.tensors if tensor.type in _REPACKED),
            vocabulary=header.length("tokenizer.ggml.tokens"),
            window=max(numbers("context_length")),
            cell=all_kv_heads * (keys + values) * _F16,
            row=(3 * feed_forward + 4 * max(width, max(heads) * keys)) * _F32,
        )


def _bytes(tensor: Tensor) -> int:
    weights, size = _BLOCKS[tensor.type]
    return tensor.weights // weights * size
