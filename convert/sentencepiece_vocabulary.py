"""SentencePiece's BPE (https://arxiv.org/abs/1808.06226) as GGUF metadata: tokens with scores.

It comes in a file of its own, tokenizer.model, or as `tokenizers` writes it into tokenizer.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from convert.errors import ConversionError, Unsupported
from convert.tokenizer_files import SPACE, add_what_it_adds, added_kind, check_size, load_tokenizer, read_json

_UNUSED_SCORE, _ADDED_SCORE = -10000.0, -1000.0


def add_model(writer: gguf.GGUFWriter, folder: Path, size: int, settings: dict[str, Any]) -> None:
    """A SentencePiece model (https://arxiv.org/abs/1808.06226) in its own file."""
    from sentencepiece import SentencePieceProcessor

    _check_is_bpe(folder / "tokenizer.model")
    model = SentencePieceProcessor()
    model.LoadFromFile(str(folder / "tokenizer.model"))
    check_size(folder, model.vocab_size(), size)
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
    for token, i in read_json(folder / "added_tokens.json", needed=False).items():
        check_size(folder, i + 1, size)
        tokens[i], scores[i], kinds[i] = token, _ADDED_SCORE, gguf.TokenType.USER_DEFINED
    later = read_json(folder / "tokenizer.json", needed=False).get("added_tokens", [])  # added by a fine-tuning
    added = {str(about["id"]): about for about in later if about["id"] >= model.vocab_size()}
    for key, about in (added | settings.get("added_tokens_decoder", {})).items():
        i, token = int(key), str(about["content"])
        check_size(folder, i + 1, size)
        kinds[i] = added_kind(token, bool(about.get("special")))
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


def add_json(writer: gguf.GGUFWriter, folder: Path, size: int, tokenizer: dict[str, Any]) -> None:
    """SentencePiece's BPE as `tokenizers` writes it. A token's score is minus the rank of the merge that makes it."""
    model = tokenizer["model"]
    added = {about["id"]: about for about in tokenizer.get("added_tokens", [])}
    ids = {**{about["content"]: i for i, about in added.items()}, **model["vocab"]}
    check_size(folder, max(ids.values()) + 1, size)
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
                score, kind = _ADDED_SCORE, added_kind(token, bool(added[i].get("special")))
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
        add_what_it_adds(writer, load_tokenizer(folder))


def puts_space_first(tokenizer: dict[str, Any]) -> bool:
    """Whether a text's first word is taken for one after a space."""
    steps = [tokenizer.get("normalizer") or {}, tokenizer.get("pre_tokenizer") or {}]
    steps += [part for step in steps for part in [*step.get("normalizers", []), *step.get("pretokenizers", [])]]
    return any(
        (step.get("type") == "Prepend" and step.get("prepend") == SPACE)
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )
