"""Weights, vocabulary and adapters: thin owners of llama.cpp's objects.

Each is closed explicitly, in the reverse order of its making; nothing here is safe to use from two threads at once.
Names and units follow llama.cpp's `llama.h`: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c

from sgft_edge.errors import AdapterMismatch, EngineError, ModelError
from sgft_edge.llama.library import checked_path, log, start_backend, string_of
from sgft_edge.store.header import peek


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
        log.clear()
        self._p = c.llama_model_load_from_file(checked_path(path), params)
        if not self._p:
            reason = log.reason("the file is damaged")
            with contextlib.suppress(ModelError):
                reason = "it is a LoRA: give it as an adapter" if peek(path, "general.type") == "adapter" else reason
            raise ModelError(f"{path}: llama.cpp cannot load it as a model: {reason}")
        self.offloaded_layers = log.offloaded[0] if gpu_layers and log.offloaded else 0
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
        return string_of(c.llama_model_meta_val_str, self._p, key.encode())

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
        raw = checked_path(path)
        log.clear()
        self._p = c.llama_adapter_lora_init(model.handle, raw)
        if not self._p:
            raise AdapterMismatch(
                f"{path}: not an adapter for {model.path.name} ({model.architecture}): "
                f"{log.reason('llama.cpp gave no reason')}"
            )
        n = c.llama_adapter_get_alora_n_invocation_tokens(self._p)
        ids = c.llama_adapter_get_alora_invocation_tokens(self._p)
        self.invocation: tuple[int, ...] = tuple(ids[:n]) if n else ()

    @property
    def handle(self) -> Any:
        return self._p

    def metadata(self, key: str) -> str | None:
        return string_of(c.llama_adapter_meta_val_str, self._p, key.encode())

    def close(self) -> None:
        if self._p is not None:
            c.llama_adapter_lora_free(self._p)
            self._p = None
