"""llama.cpp's C interface in the few shapes that the engine needs.

Thin owners of native objects: `Model`, `Adapter`, `Context`, `Grammar`. Each is
closed explicitly, in the reverse order of its making; nothing here is safe to
use from two threads at once. Names and units follow llama.cpp's `llama.h`:
https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as c
import numpy as np
from numpy.typing import NDArray

from sgft_edge.errors import AdapterMismatch, ContextOverflow, EngineError, GrammarError, ModelError
from sgft_edge.llama.tuning import Tuning
from sgft_edge.store.header import check_gguf, peek

_LOG_WARN, _LOG_ERROR = 3, 4
_KV_TYPES = {"f16": c.GGML_TYPE_F16, "q8_0": c.GGML_TYPE_Q8_0}
_FLASH_ATTENTION = {
    "auto": c.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": c.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": c.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class _Log:
    """llama.cpp writes its reasons to a log only; this keeps what error messages and reports need."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.offloaded: tuple[int, int] | None = None
        self.listener: Callable[[str], None] | None = None
        self.callback = c.llama_log_callback(self._write)

    def _write(self, level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (_LOG_WARN, _LOG_ERROR) and line:
            self.problems = [*self.problems[-7:], line]
        elif found := re.search(r"offloaded (\d+)/(\d+) layers", line):
            self.offloaded = int(found[1]), int(found[2])
        if self.listener is not None:
            self.listener(line)

    def clear(self) -> None:
        self.problems, self.offloaded = [], None

    def reason(self, default: str) -> str:
        """The most telling of the last lines, without llama.cpp's function name before it."""
        for line in reversed(self.problems):
            reason = re.sub(r"^[\w:~]+: (error loading model: )?", "", line)
            if not reason.startswith("failed to load model"):
                return reason
        return default


_log = _Log()
_started = threading.Lock()
_ready = False


def start_backend() -> None:
    """Start llama.cpp's backend once in this process and take over its log."""
    global _ready
    with _started:
        if not _ready:
            c.llama_log_set(_log.callback, ctypes.c_void_p(0))
            c.llama_backend_init()
            _ready = True


def build() -> str:
    """What may change the last bits of a computation: llama-cpp-python's version and the instructions in use."""
    start_backend()
    return f"{llama_cpp.__version__} {c.llama_print_system_info().decode()}"


@contextmanager
def log_lines(listener: Callable[[str], None]) -> Iterator[Callable[[str], str]]:
    """Give each line that llama.cpp logs to `listener`; yields what tells the reason of a failure, or a default."""
    start_backend()
    _log.clear()
    _log.listener = listener
    try:
        yield _log.reason
    finally:
        _log.listener = None


def _checked_path(path: Path) -> bytes:
    """Refuse what is plainly not a GGUF file before native code sees it."""
    check_gguf(path)
    return os.fsencode(path)


def _string(read: Any, *args: Any) -> str | None:
    """Read a string through llama.cpp's (buffer, size) -> length convention."""
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = read(*args, buffer, size)
        if length < 0:
            return None
        if length < size:
            return buffer.raw[:length].decode("utf-8", "replace")
        size = length + 1


class Model:
    """The weights and the vocabulary of one GGUF file.

    `gpu_layers` is the number of layers to offload, -1 for all, onto `devices`
    (ggml's handles). With `vocab_only` nothing but the vocabulary and the
    metadata are read, and nothing can be decoded. Raises `ModelError` for a file that llama.cpp cannot load or
    that cannot decode text.
    """

    def __init__(self, path: Path, gpu_layers: int = 0, devices: Sequence[int] = (), vocab_only: bool = False) -> None:
        start_backend()
        self.path = path
        params = c.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.vocab_only = vocab_only
        self._devices = (ctypes.c_void_p * (len(devices) + 1))(*devices, None)
        params.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        _log.clear()
        self._p = c.llama_model_load_from_file(_checked_path(path), params)
        if not self._p:
            reason = _log.reason("the file is damaged")
            with contextlib.suppress(ModelError):
                reason = "it is a LoRA: give it as an adapter" if peek(path, "general.type") == "adapter" else reason
            raise ModelError(f"{path}: llama.cpp cannot load it as a model: {reason}")
        self.offloaded_layers = _log.offloaded[0] if gpu_layers and _log.offloaded else 0
        self._vocab = c.llama_model_get_vocab(self._p)
        self.n_vocab: int = c.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = c.llama_model_n_ctx_train(self._p)
        self.architecture = self.metadata("general.architecture") or "unknown"
        self.bos: int = c.llama_vocab_bos(self.vocab)
        self.add_bos = bool(c.llama_vocab_get_add_bos(self.vocab))
        spm = c.llama_vocab_type(self.vocab) == c.LLAMA_VOCAB_TYPE_SPM
        self._spaced = spm and self.metadata("tokenizer.ggml.add_space_prefix") != "false"
        self._pieces: dict[int, bytes] = {}
        self._eog: dict[int, bool] = {}
        if not vocab_only and (unfit := self._unfit()) is not None:
            self.close()
            raise ModelError(f"{path}: expected a model that decodes text, found {unfit}")

    def _unfit(self) -> str | None:
        if c.llama_model_has_encoder(self._p) or not c.llama_model_has_decoder(self._p):
            return f"'{self.architecture}', which needs an encoder"
        if c.llama_model_is_diffusion(self._p):
            return f"'{self.architecture}', a diffusion model"
        if c.llama_model_is_recurrent(self._p) or c.llama_model_is_hybrid(self._p):
            return f"'{self.architecture}', a recurrent model, which cannot take back what it has read"
        if self.n_vocab == 0:
            return "no vocabulary"
        return None

    @property
    def handle(self) -> Any:
        if self._p is None:
            raise EngineError("the model is closed")
        return self._p

    @property
    def vocab(self) -> Any:
        if self._p is None:
            raise EngineError("the model is closed")
        return self._vocab

    def metadata(self, key: str) -> str | None:
        """A scalar of the GGUF metadata as text, None where it is absent."""
        return _string(c.llama_model_meta_val_str, self._p, key.encode())

    @property
    def chat_template(self) -> str | None:
        source = c.llama_model_chat_template(self.handle, None)
        return source.decode("utf-8", "replace") if source else None

    def tokenize_document(self, text: str) -> list[int]:
        """Token ids of a text that begins here: with BOS and EOS where the vocabulary asks for them."""
        return self._tokenize(text.encode(), special=True, whole=True)

    def tokenize(self, text: str | bytes, special: bool = False) -> list[int]:
        """Token ids of a text that goes on from another, without BOS or EOS.

        With `special` the text's control tokens count as such. SentencePiece
        vocabularies would put a space before every text; here they do not.
        """
        raw = text.encode() if isinstance(text, str) else text
        if not self._spaced:
            return self._tokenize(raw, special)
        mark = self._tokenize(b"\n")
        return self._tokenize(b"\n" + raw, special)[len(mark) :]

    def _tokenize(self, raw: bytes, special: bool = False, whole: bool = False) -> list[int]:
        size = len(raw) + 8
        ids = (c.llama_token * size)()
        n = c.llama_tokenize(self.vocab, raw, len(raw), ids, size, whole, special)
        if n < 0:
            raise EngineError(f"llama.cpp could not tokenize a text of {len(raw)} bytes")
        return list(ids[:n])

    def piece(self, token: int, keep: bool = True) -> bytes:
        """The bytes that a token stands for, kept for the next time; control tokens stand for none."""
        if (known := self._pieces.get(token)) is not None:
            return known
        buffer = ctypes.create_string_buffer(512)
        n = c.llama_token_to_piece(self.vocab, token, buffer, 512, 0, False)
        piece = buffer.raw[: max(n, 0)]
        if keep:
            self._pieces[token] = piece
        return piece

    def token_text(self, token: int) -> str:
        """A token as the vocabulary spells it, for control tokens too; empty for none."""
        text = c.llama_vocab_get_text(self.vocab, token) if token >= 0 else None
        return text.decode("utf-8", "replace") if text else ""

    @property
    def eos(self) -> int:
        return int(c.llama_vocab_eos(self.vocab))

    @property
    def eos_text(self) -> str:
        return self.token_text(self.eos)

    def end_tokens(self) -> list[int]:
        """All tokens that end a generation."""
        return [token for token in range(self.n_vocab) if c.llama_vocab_is_eog(self.vocab, token)]

    def is_control(self, token: int) -> bool:
        """Whether a token is one of the vocabulary's special ones."""
        return bool(c.llama_vocab_is_control(self.vocab, token))

    def ends_generation(self, token: int) -> bool:
        if token not in self._eog:
            self._eog[token] = bool(c.llama_vocab_is_eog(self.vocab, token))
        return self._eog[token]

    def close(self) -> None:
        if self._p is not None:
            c.llama_model_free(self._p)
            self._p = None


class Adapter:
    """A LoRA adapter loaded for one model. Raises `AdapterMismatch` where it does not fit."""

    def __init__(self, model: Model, path: Path) -> None:
        self.path = path
        raw = _checked_path(path)
        _log.clear()
        self._p = c.llama_adapter_lora_init(model.handle, raw)
        if not self._p:
            raise AdapterMismatch(
                f"{path}: not an adapter for {model.path.name} ({model.architecture}): "
                f"{_log.reason('llama.cpp gave no reason')}"
            )
        n = c.llama_adapter_get_alora_n_invocation_tokens(self._p)
        ids = c.llama_adapter_get_alora_invocation_tokens(self._p)
        self.invocation: tuple[int, ...] = tuple(ids[:n]) if n else ()

    @property
    def handle(self) -> Any:
        return self._p

    def metadata(self, key: str) -> str | None:
        return _string(c.llama_adapter_meta_val_str, self._p, key.encode())

    def close(self) -> None:
        if self._p is not None:
            c.llama_adapter_lora_free(self._p)
            self._p = None


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
        _log.clear()
        self._p = c.llama_init_from_model(model.handle, params)
        if not self._p:
            raise EngineError(
                f"llama.cpp could not make a context of {slots} x {window} tokens: "
                f"{_log.reason('out of memory?')}: lower --context or --parallel"
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
        _log.clear()
        status = c.llama_decode(self.handle, self._batch)
        if status == 1:
            raise ContextOverflow(n, self.window)
        if status:
            raise EngineError(f"llama_decode returned {status} for {n} tokens: {_log.reason('no reason given')}")

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
        _log.clear()
        self._p = c.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
        if not self._p:
            raise GrammarError(f"llama.cpp does not accept the grammar: {_log.reason('it gave no reason')}")

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
