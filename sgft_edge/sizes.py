"""What the header of a model's file tells of the memory that the model takes; no weights are read.

The metadata keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgft_edge.binding import gguf_header, header_text

_F16, _F32 = 2, 4  # bytes
_ARRAY = 9  # the type of a metadata value
_NUMBERS = {
    0: ctypes.c_uint8,
    1: ctypes.c_int8,
    2: ctypes.c_uint16,
    3: ctypes.c_int16,
    4: ctypes.c_uint32,
    5: ctypes.c_int32,
    10: ctypes.c_uint64,
    11: ctypes.c_int64,
}
_Q4_0, _Q8_0, _Q2_K, _Q4_K, _Q5_K, _Q6_K, _IQ4_NL, _MXFP4 = 2, 8, 10, 12, 13, 14, 20, 39
_X86 = {_Q4_0, _Q2_K, _Q4_K, _IQ4_NL, _MXFP4}
_REPACKED = _X86 if platform.machine().lower() in ("x86_64", "amd64", "i686") else {*_X86, _Q8_0, _Q5_K, _Q6_K}


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
        """Raises `ModelError` for a file that is no GGUF file or damaged."""
        with gguf_header(path) as (ggml, handle):
            arch = header_text(ggml, handle, "general.architecture")

            def numbers(key: str) -> list[int]:
                return _numbers(ggml, handle, f"{arch}.{key}")

            layers, width = max(numbers("block_count")), max(numbers("embedding_length"))
            heads = numbers("attention.head_count")
            kv_heads = numbers("attention.head_count_kv") if any(numbers("attention.head_count_kv")) else heads
            head = width // max(*heads, 1)
            keys = max(numbers("attention.key_length")) or head
            values = max(numbers("attention.value_length")) or head
            experts = max(numbers("expert_feed_forward_length")) * max(numbers("expert_used_count"))
            feed_forward = max(*numbers("feed_forward_length"), experts)
            all_kv_heads = sum(kv_heads) if len(kv_heads) > 1 else layers * kv_heads[0]
            tensors = (ctypes.c_int64(i) for i in range(ggml.gguf_get_n_tensors(handle)))
            return cls(
                file=path.stat().st_size,
                repacked=sum(
                    ggml.gguf_get_tensor_size(handle, tensor)
                    for tensor in tensors
                    if ggml.gguf_get_tensor_type(handle, tensor) in _REPACKED
                ),
                vocabulary=_length(ggml, handle, "tokenizer.ggml.tokens"),
                window=max(numbers("context_length")),
                cell=all_kv_heads * (keys + values) * _F16,
                row=(3 * feed_forward + 4 * max(width, max(heads) * keys)) * _F32,
            )


def _numbers(ggml: Any, handle: ctypes.c_void_p, key: str) -> list[int]:
    """A whole number of the metadata, or an array of them: one for each layer. [0] where there is none."""
    found = ctypes.c_int64(ggml.gguf_find_key(handle, key.encode()))
    if found.value < 0:
        return [0]
    kind, data, count = ggml.gguf_get_kv_type(handle, found), "gguf_get_val_data", 1
    if kind == _ARRAY:
        kind, data = ggml.gguf_get_arr_type(handle, found), "gguf_get_arr_data"
        count = ggml.gguf_get_arr_n(handle, found)
    if kind not in _NUMBERS or not count:
        return [0]
    return list((_NUMBERS[kind] * count).from_address(getattr(ggml, data)(handle, found)))


def _length(ggml: Any, handle: ctypes.c_void_p, key: str) -> int:
    """The length of an array of the metadata; 0 where there is none."""
    found = ctypes.c_int64(ggml.gguf_find_key(handle, key.encode()))
    if found.value < 0 or ggml.gguf_get_kv_type(handle, found) != _ARRAY:
        return 0
    return int(ggml.gguf_get_arr_n(handle, found))
