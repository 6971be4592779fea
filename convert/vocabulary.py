"""Tokenizers as GGUF metadata: copied verbatim from a GGUF base, or built from what transformers reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from convert import sentencepiece_vocabulary
from convert.errors import Unsupported
from convert.header import Metadata, read_header
from convert.tokenizer_files import SPACE, add_what_it_adds, added_kind, check_size, load_tokenizer, read_json
from sgft_edge.llama.templates import ChatTemplate

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|"
    r" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {
    ("words",): "gpt-2",
    ("digits", "words"): "smollm",
    (_SPLIT.format(digits=r"\p{N}"),): "qwen2",
    (_SPLIT.format(digits=r"\p{N}{1,3}"),): "llama-bpe",
    (_TEKKEN,): "tekken",
}
"""What cuts a text before BPE, by llama.cpp's names; verification proves the choice by token ids."""


def from_gguf(path: Path) -> Metadata:
    """The tokenizer of a GGUF file, chat template included, verbatim."""
    return read_header(path).starting_with("tokenizer.")


def write_vocabulary(path: Path, vocabulary: Metadata) -> None:
    """Write a GGUF file with a tokenizer and nothing else."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.kv_data[0].update(vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def hyperparameters_from_gguf(path: Path) -> Metadata:
    """The hyperparameters of a GGUF file, verbatim."""
    header = read_header(path)
    return header.starting_with(f"{header.value('general.architecture')}.")


def digest(vocabulary: Metadata) -> str:
    """SHA-256 of the tokens and merges: equal for two tokenizers that give equal ids."""
    keys = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
    parts = [[str(item) for item in vocabulary[key].value] if key in vocabulary else None for key in keys]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_template(vocabulary: Metadata) -> None:
    """Raise `TemplateError` for a chat template that the runtime cannot render."""
    tokens = vocabulary["tokenizer.ggml.tokens"].value

    def text(name: str) -> str:
        found = vocabulary.get(f"tokenizer.ggml.{name}_token_id")
        return str(tokens[found.value]) if found is not None else ""

    source = vocabulary.get("tokenizer.chat_template")
    ChatTemplate.for_model(source.value if source else None, text("bos"), text("eos"), "<|im_start|>" in tokens)


def size(vocabulary: Metadata) -> int:
    """How many tokens there are."""
    return len(vocabulary["tokenizer.ggml.tokens"].value)


def from_folder(folder: Path, config: Mapping[str, Any], pre: str | None = None) -> Metadata:
    """The tokenizer that transformers wrote into a folder.

    `pre` names llama.cpp's pre-tokenizer where it is not one of those known here.
    Raises `ConversionError` for missing files, `Unsupported` for a kind that has no form in GGUF.
    """
    writer = gguf.GGUFWriter(None, "llama")
    settings = read_json(folder / "tokenizer_config.json", needed=False)
    gemma = config.get("model_type") == "gemma3_text"
    if (folder / "tokenizer.model").is_file():
        sentencepiece_vocabulary.add_model(writer, folder, config["vocab_size"], settings)
        spaced = False if gemma else settings.get("add_prefix_space")
    else:
        tokenizer = read_json(folder / "tokenizer.json", needed=True)
        model = tokenizer.get("model", {})
        if model.get("type") != "BPE":
            raise Unsupported(f"{folder}/tokenizer.json: expected a BPE tokenizer, found {model.get('type')!r}")
        if model.get("byte_fallback"):
            sentencepiece_vocabulary.add_json(writer, folder, config["vocab_size"], tokenizer)
            spaced = sentencepiece_vocabulary.puts_space_first(tokenizer)
        else:
            _add_byte_level_bpe(writer, folder, config["vocab_size"], tokenizer, pre)
            spaced = settings.get("add_prefix_space") if config.get("model_type") in ("llama", "mistral") else None
    if spaced is not None:
        writer.add_add_space_prefix(bool(spaced))
    return {key: value for key, value in writer.kv_data[0].items() if key.startswith("tokenizer.")}


def _add_byte_level_bpe(
    writer: gguf.GGUFWriter, folder: Path, size: int, tokenizer: dict[str, Any], pre: str | None
) -> None:
    """GPT-2's kind: the tokens' bytes as printable letters."""
    reader = load_tokenizer(folder)
    vocabulary: dict[str, int] = reader.get_vocab()
    check_size(folder, max(vocabulary.values()) + 1, size)
    by_id = {token_id: token for token, token_id in vocabulary.items()}
    added = reader.added_tokens_decoder
    tokens, kinds = [], []
    for i in range(size):
        token, kind = by_id.get(i), gguf.TokenType.NORMAL
        if token is None:
            token, kind = f"[PAD{i}]", gguf.TokenType.UNUSED
        elif i in added:
            if not added[i].normalized:  # llama.cpp looks for added tokens in text as it stands
                token = reader.decode(reader.encode(token, add_special_tokens=False))
            kind = added_kind(token, added[i].special)
            if kind is gguf.TokenType.USER_DEFINED:
                token = token.replace(SPACE, " ")
        tokens.append(token)
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre or _pre_tokenizer(folder, tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    gguf.SpecialVocab(folder, load_merges=True).add_to_gguf(writer, quiet=True)
    add_what_it_adds(writer, reader)


def _pre_tokenizer(folder: Path, tokenizer: dict[str, Any]) -> str:
    outer = tokenizer.get("pre_tokenizer") or {}
    steps: list[str] = []
    for step in outer.get("pretokenizers", [outer]):
        match step:
            case {"type": "ByteLevel", "add_prefix_space": True}:
                steps.append("ByteLevel with a space before the text")
            case {"type": "ByteLevel", "use_regex": False}:
                pass
            case {"type": "ByteLevel"}:
                steps.append("words")
            case {"type": "Digits", "individual_digits": True}:
                steps.append("digits")
            case {"type": "Split", "pattern": {"Regex": str(pattern)}}:
                steps.append(pattern)
            case _:
                steps.append(str(step.get("type")))
    if tuple(steps) not in PRE_TOKENIZERS:
        raise Unsupported(
            f"{folder}/tokenizer.json: its pre-tokenizer ({'; '.join(steps)}) is not one of "
            f"{', '.join(PRE_TOKENIZERS.values())}: name llama.cpp's own with --pre"
        )
    return PRE_TOKENIZERS[tuple(steps)]
