"""What all readers of tokenizers' files share: the files themselves, and how added tokens are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
from gguf.gguf_writer import GGUFValue

from convert.errors import ConversionError

SPACE = "\u2581"  # SentencePiece's mark for a space


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers reads it, which training uses. Raises `ConversionError`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as e:  # its readers raise many kinds
        reason = " ".join(str(e).split())[:200]
        raise ConversionError(f"{folder}: transformers cannot read its tokenizer: {reason}") from e


def add_what_it_adds(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    """Whether BOS and EOS are put around a text: as the tokenizer does it, whatever its several settings say."""
    ids = tokenizer.encode("1")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    adds_bos, adds_eos = bos is not None and ids[0] == bos, eos is not None and len(ids) > 1 and ids[-1] == eos
    known = writer.kv_data[0]
    byte_level = known["tokenizer.ggml.model"].value == "gpt2"
    for key, adds in (("add_bos_token", adds_bos), ("add_eos_token", adds_eos)):
        if adds or byte_level or f"tokenizer.ggml.{key}" in known:
            known[f"tokenizer.ggml.{key}"] = GGUFValue(adds, gguf.GGUFValueType.BOOL, None)


def added_kind(token: str, special: bool) -> gguf.TokenType:
    """Control tokens that a model's author forgot to mark as special are known by their form."""
    looks_special = (
        token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (token.startswith("<|") and token.endswith("|>"))
        or (token.startswith("<｜") and token.endswith("｜>"))
        or (token.startswith("<unused") and token.endswith(">"))
    )
    return gguf.TokenType.CONTROL if special or looks_special else gguf.TokenType.USER_DEFINED


def check_size(folder: Path, tokens: int, rows: int) -> None:
    if tokens > rows:
        raise ConversionError(
            f"{folder}: the tokenizer has {tokens} tokens, the embedding {rows} rows: "
            "they must belong together; save model and tokenizer after resize_token_embeddings()"
        )


def read_json(path: Path, needed: bool) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            raise ConversionError(f"{path.parent}: expected {path.name} or tokenizer.model, found neither") from None
        return {}
    except (OSError, ValueError, RecursionError) as e:
        raise ConversionError(f"{path}: expected a JSON object: {e}") from e
    if not isinstance(value, dict):
        raise ConversionError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
