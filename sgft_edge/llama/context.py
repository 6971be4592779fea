"""A KV cache and the batch that feeds it, and grammars: thin owners of llama.cpp's objects, as in model.py."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np
from numpy.typing import NDArray

from sgft_edge.errors import ContextOverflow, EngineError, GrammarError
from sgft_edge.llama.library import log
from sgft_edge.llama.model import Adapter, Model
from sgft_edge.llama.tuning import Tuning

_KV_TYPES = {"f16": c.GGML_TYPE_F16, "q8_0": c.GGML_TYPE_Q8_0}
_FLASH_ATTENTION = {
    "auto": c.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": c.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": c.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class Context:
    """A KV cache of `slots` sequences with `window` tokens each, and the batch that feeds it.

    A slot has its own stream of cells, so a sequence attends to no more than
    itself. A decode call computes logits for at most as many rows as there are
    slots, or as a guess needs, or `outputs`. With `exact` the KV cache is float32
    and attention is computed plainly: for comparisons.
    """

    def __init__(
        self,
        model: Model,
        slots: int,
        window: int,
        tuning: Tuning,
        outputs: int = 0,
        offload: bool = True,
        exact: bool = False,
    ) -> None:
        params = c.llama_context_default_params()
        params.type_k = params.type_v = _KV_TYPES[tuning.kv_type]
        params.flash_attn_type = _FLASH_ATTENTION[tuning.flash_attention]
        if exact:
            params.type_k = params.type_v = c.GGML_TYPE_F32
            params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_ctx = slots * window
        params.n_seq_max = slots
        params.n_batch = params.n_ubatch = tuning.batch
        params.n_outputs_max = outputs or max(slots, 1 + tuning.draft_tokens)
        params.n_threads, params.n_threads_batch = tuning.threads, tuning.prefill_threads
        params.offload_kqv = params.op_offload = offload
        params.kv_unified = False
        params.no_perf = True
        log.clear()
        self._p = c.llama_init_from_model(model.handle, params)
        if not self._p:
            raise EngineError(
                f"llama.cpp could not make a context of {slots} x {window} tokens: "
                f"{log.reason('out of memory?')}: lower --context or --parallel"
            )
        self._memory = c.llama_get_memory(self._p)
        self.n_vocab = model.n_vocab
        self.batch_size = tuning.batch
        self.window = int(c.llama_n_ctx_seq(self._p))
        self._make_batch(tuning.batch)

    def _make_batch(self, size: int) -> None:
        """One llama_batch over numpy arrays, each of shape (size,), so that filling it is slice assignment."""
        self.token = np.zeros(size, np.int32)
        self.pos = np.zeros(size, np.int32)
        self.seq = np.zeros(size, np.int32)
        self.output = np.zeros(size, np.int8)
        self._n_seq = np.ones(size, np.int32)
        row = self.seq.itemsize
        self._seq_rows = (self.seq.ctypes.data + row * np.arange(size)).astype(np.uintp)

        def pointer(array: NDArray[Any], kind: Any) -> Any:
            return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))

        self._batch = c.llama_batch(
            0,
            pointer(self.token, c.llama_token),
            None,
            pointer(self.pos, c.llama_pos),
            pointer(self._n_seq, ctypes.c_int32),
            pointer(self._seq_rows, ctypes.POINTER(c.llama_seq_id)),
            pointer(self.output, ctypes.c_int8),
        )

    @property
    def handle(self) -> Any:
        if self._p is None:
            raise EngineError("the engine is closed")
        return self._p

    def decode(self, n: int) -> None:
        """Decode the first `n` rows of the batch arrays."""
        self._batch.n_tokens = n
        log.clear()
        status = c.llama_decode(self.handle, self._batch)
        if status == 1:
            raise ContextOverflow(n, self.window)
        if status:
            raise EngineError(f"llama_decode returned {status} for {n} tokens: {log.reason('no reason given')}")

    def logits(self, row: int) -> NDArray[np.float32]:
        """Logits of shape (n_vocab,) at a batch row flagged for output; a view, valid until the next decode."""
        p = c.llama_get_logits_ith(self.handle, row)
        if not p:
            raise EngineError(f"no logits were computed for row {row}")
        row_of_floats: Any = (ctypes.c_float * self.n_vocab).from_address(ctypes.addressof(p.contents))
        logits: NDArray[np.float32] = np.frombuffer(row_of_floats, np.float32)
        return logits

    def use(self, adapter: Adapter | None) -> None:
        """Switch to base weights (None) or base + adapter for the decodes that follow."""
        if adapter is None:
            c.llama_set_adapters_lora(self.handle, None, 0, None)
        else:
            c.llama_set_adapters_lora(
                self.handle, (c.llama_adapter_lora_p_ctypes * 1)(adapter.handle), 1, (ctypes.c_float * 1)(1.0)
            )

    def keep(self, slot: int, n: int) -> bool:
        """Drop all but the first `n` tokens of a slot; False where the memory cannot rewind."""
        return bool(self.handle and c.llama_memory_seq_rm(self._memory, slot, n, -1))

    def save(self, slot: int) -> bytes:
        """The state of one slot. It carries no identity of model or adapter: the caller's key must."""
        size = c.llama_state_seq_get_size(self.handle, slot)
        buffer = (ctypes.c_uint8 * size)()
        written = c.llama_state_seq_get_data(self.handle, buffer, size, slot)
        return bytes(memoryview(buffer)[:written])

    def restore(self, slot: int, state: bytes) -> bool:
        """Fill an empty slot with a saved state; False where llama.cpp refuses it."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        return bool(c.llama_state_seq_set_data(self.handle, buffer, len(state), slot))

    def close(self) -> None:
        if self._p is not None:
            c.llama_free(self._p)
            self._p = None


class Grammar:
    """A GBNF grammar in progress over one decoded text.

    llama.cpp ends the process when its grammar accepts a token that does not
    fit, so `accept` may only be called with a token that `allowed` let through
    in the same state; the engine's sampler does so.
    """

    def __init__(self, model: Model, gbnf: str) -> None:
        if not gbnf.strip():  # llama.cpp would take it for no constraint
            raise GrammarError("llama.cpp does not accept the grammar: it is empty")
        log.clear()
        self._p = c.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
        if not self._p:
            raise GrammarError(f"llama.cpp does not accept the grammar: {log.reason('it gave no reason')}")

    def allowed(self, tokens: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which of the tokens may come next; shape (len(tokens),)."""
        n = len(tokens)
        data = (c.llama_token_data * n)()
        view = np.frombuffer(data, dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        view["id"] = tokens
        candidates = c.llama_token_data_array(data, n, -1, False)
        c.llama_sampler_apply(self._p, ctypes.byref(candidates))
        return np.asarray(view["logit"] == 0.0)

    def accept(self, token: int) -> None:
        c.llama_sampler_accept(self._p, token)

    def close(self) -> None:
        if self._p is not None:
            c.llama_sampler_free(self._p)
            self._p = None
