"""Tokenizers as GGUF metadata: copied verbatim from a GGUF base, or built from what transformers reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf

from convert.errors import ConversionError, Unsupported
from convert.header import Metadata, read_header
from sgft_edge.templates import ChatTemplate

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

SPACE = "\u2581"  # SentencePiece's mark for a space
_UNUSED_SCORE, _ADDED_SCORE = -10000.0, -1000.0


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers reads it, which training uses. Raises `ConversionError`."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as e:  # its readers raise many kinds
        reason = " ".join(str(e).split())[:200]
        raise ConversionError(f"{folder}: transformers cannot read its tokenizer: {reason}") from e


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
    settings = _read_json(folder / "tokenizer_config.json", needed=False)
    gemma = config.get("model_type") == "gemma3_text"
    if (folder / "tokenizer.model").is_file():
        _add_sentencepiece(writer, folder, config["vocab_size"], settings)
        spaced = False if gemma else settings.get("add_prefix_space")
    else:
        tokenizer = _read_json(folder / "tokenizer.json", needed=True)
        model = tokenizer.get("model", {})
        if model.get("type") != "BPE":
            raise Unsupported(f"{folder}/tokenizer.json: expected a BPE tokenizer, found {model.get('type')!r}")
        if model.get("byte_fallback"):
            _add_sentencepiece_bpe(writer, folder, config["vocab_size"], tokenizer)
            spaced = _puts_space_first(tokenizer)
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
    _check_size(folder, max(vocabulary.values()) + 1, size)
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
            kind = _added_kind(token, added[i].special)
            if kind is gguf.TokenType.USER_DEFINED:
                token = token.replace(SPACE, " ")
        tokens.append(token)
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre or _pre_tokenizer(folder, tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    gguf.SpecialVocab(folder, load_merges=True).add_to_gguf(writer, quiet=True)
    _add_what_it_adds(writer, reader)


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


def _add_sentencepiece(writer: gguf.GGUFWriter, folder: Path, size: int, settings: dict[str, Any]) -> None:
    """A SentencePiece model (https://arxiv.org/abs/1808.06226) in its own file."""
    from sentencepiece import SentencePieceProcessor

    _check_is_bpe(folder / "tokenizer.model")
    model = SentencePieceProcessor()
    model.LoadFromFile(str(folder / "tokenizer.model"))
    _check_size(folder, model.vocab_size(), size)
    tokens = [f"[PAD{i}]" for i in range(size)]
    scores = [_UNUSED_SCORE] * size
    kinds = [gguf.TokenType.UNUSED] * size
    for i in range(model.vocab_size()):
        tokens[i], scores[i], kinds[i] = model.IdToPiece(i), model.GetScore(i), gguf.TokenType.NORMAL
        if model.IsUnknown(i):
            kinds[i] = gguf.TokenType.UNKNOWN
        elif model.IsControl(i):
            kinds[i] = gguf.TokenType.CONTROL
        elif model.IsUnused(i):
            kinds[i] = gguf.TokenType.UNUSED
        elif model.IsByte(i):
            kinds[i] = gguf.TokenType.BYTE
    for token, i in _read_json(folder / "added_tokens.json", needed=False).items():
        _check_size(folder, i + 1, size)
        tokens[i], scores[i], kinds[i] = token, _ADDED_SCORE, gguf.TokenType.USER_DEFINED
    later = _read_json(folder / "tokenizer.json", needed=False).get("added_tokens", [])  # added by a fine-tuning
    added = {str(about["id"]): about for about in later if about["id"] >= model.vocab_size()}
    for key, about in (added | settings.get("added_tokens_decoder", {})).items():
        i, token = int(key), str(about["content"])
        _check_size(folder, i + 1, size)
        kinds[i] = _added_kind(token, bool(about.get("special")))
        tokens[i] = token if kinds[i] is gguf.TokenType.CONTROL else token.replace(SPACE, " ")
        scores[i] = _ADDED_SCORE
    _add_scored(writer, folder, tokens, scores, kinds)


def _check_is_bpe(path: Path) -> None:
    """Refuse a unigram model, which takes the likeliest pieces of all; llama.cpp joins pieces as BPE does."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2 as form

    model = form.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as e:
        raise ConversionError(f"{path}: expected a SentencePiece model, found a damaged file: {e}") from e
    if not model.pieces:
        raise ConversionError(f"{path}: expected a SentencePiece model, found one without pieces")
    kind = model.trainer_spec.model_type
    if kind != form.TrainerSpec.BPE:
        found = form.TrainerSpec.ModelType.Name(kind)
        raise Unsupported(f"{path}: expected a BPE model, found {found}")


def _add_sentencepiece_bpe(writer: gguf.GGUFWriter, folder: Path, size: int, tokenizer: dict[str, Any]) -> None:
    """SentencePiece's BPE as `tokenizers` writes it. A token's score is minus the rank of the merge that makes it."""
    model = tokenizer["model"]
    added = {about["id"]: about for about in tokenizer.get("added_tokens", [])}
    ids = {**{about["content"]: i for i, about in added.items()}, **model["vocab"]}
    _check_size(folder, max(ids.values()) + 1, size)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault("".join(parts), rank)
    by_id = {i: token for token, i in ids.items()}
    tokens, scores, kinds = [], [], []
    for i in range(size):
        token, score, kind = by_id.get(i, f"[PAD{i}]"), _UNUSED_SCORE, gguf.TokenType.UNUSED
        if i in by_id:
            score, kind = -float(ranks.get(token, len(ranks))), gguf.TokenType.NORMAL
            if token == model.get("unk_token"):
                score, kind = 0.0, gguf.TokenType.UNKNOWN
            elif i in added:
                score, kind = _ADDED_SCORE, _added_kind(token, bool(added[i].get("special")))
            elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                score, kind = 0.0, gguf.TokenType.BYTE
        tokens.append(token)
        scores.append(score)
        kinds.append(kind)
    _add_scored(writer, folder, tokens, scores, kinds)


def _add_scored(
    writer: gguf.GGUFWriter, folder: Path, tokens: list[str], scores: list[float], kinds: list[gguf.TokenType]
) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    gguf.SpecialVocab(folder, n_vocab=len(tokens)).add_to_gguf(writer, quiet=True)
    if (folder / "tokenizer.json").is_file():
        _add_what_it_adds(writer, load_tokenizer(folder))


def _add_what_it_adds(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    """Whether BOS and EOS are put around a text: as the tokenizer does it, whatever its several settings say."""
    ids = tokenizer.encode("1")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    adds_bos, adds_eos = bos is not None and ids[0] == bos, eos is not None and len(ids) > 1 and ids[-1] == eos
    known = writer.kv_data[0]
    byte_level = known["tokenizer.ggml.model"].value == "gpt2"
    for key, adds in (("add_bos_token", adds_bos), ("add_eos_token", adds_eos)):
        if adds or byte_level or f"tokenizer.ggml.{key}" in known:
            known[f"tokenizer.ggml.{key}"] = gguf.gguf_writer.GGUFValue(adds, gguf.GGUFValueType.BOOL, None)


def _puts_space_first(tokenizer: dict[str, Any]) -> bool:
    """Whether a text's first word is taken for one after a space."""
    steps = [tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}]
    steps += [part for step in steps for part in [*step.get("normalizers", []), *step.get("pretokenizers", [])]]
    return any(
        (step.get("type") == "Prepend" and step.get("prepend") == SPACE)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _added_kind(token: str, special: bool) -> gguf.TokenType:
    """Control tokens that a model's author forgot to mark as special are known by their form."""
    looks_special = (
        token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (token.startswith("<|") and token.endswith("|>"))
        or (token.startswith("<｜") and token.endswith("｜>"))
        or (token.startswith("<unused") and token.endswith(">"))
    )
    return gguf.TokenType.CONTROL if special or looks_special else gguf.TokenType.USER_DEFINED


def _check_size(folder: Path, tokens: int, rows: int) -> None:
    if tokens > rows:
        raise ConversionError(
            f"{folder}: the tokenizer has {tokens} tokens, the embedding {rows} rows: "
            "they must belong together; save model and tokenizer after resize_token_embeddings()"
        )


def _read_json(path: Path, needed: bool) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if needed:
            raise ConversionError(f"{path.parent}: expected {path.name} or tokenizer.model, found neither") from None
        return {}
    except (OSError, ValueError) as e:
        raise ConversionError(f"{path}: expected a JSON object: {e}") from e
    if not isinstance(value, dict):
        raise ConversionError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
