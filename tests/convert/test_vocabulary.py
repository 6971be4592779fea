"""Tokenizers as GGUF metadata: what llama.cpp then makes of hard texts is what transformers makes of them."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import hf
import pytest
import sentencepiece
import tiny
from gguf import GGUFValueType, TokenType
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from convert import tokenizer_files, vocabulary
from convert.checkpoint import checkpoint_of
from convert.errors import ConversionError, Unsupported
from convert.header import Metadata
from convert.model_gguf import write_model
from convert.verify import HARD_STRINGS
from sgft_edge.errors import ModelError
from sgft_edge.llama.model import Model

TOKENS, KINDS, SCORES, MERGES = (f"tokenizer.ggml.{key}" for key in ("tokens", "token_type", "scores", "merges"))
BPE_SIZE = 515
ADDED = ("<tool>", "</tool>", "<|extra|>")
TEXTS = (*HARD_STRINGS, "<|im_start|>user\nHi<|im_end|>\n", "a <tool> b</tool>c", "<tool>", "<|extra|>", "x<|extra|>y")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""https://huggingface.co/mistralai/Mistral-Nemo-Instruct-2407/blob/main/tokenizer.json"""


def config_of(kind: type[PretrainedConfig] = LlamaConfig, size: int = BPE_SIZE) -> dict[str, Any]:
    return kind(vocab_size=size, num_hidden_layers=1).to_dict()


def bpe_folder(folder: Path, pre: str) -> Path:
    """The tokenizer of `tiny` as its makers would publish it, with one of llama.cpp's pre-tokenizers."""
    tokenizer = tiny.byte_tokenizer()
    tokenizer["tokenizer.ggml.pre"] = tiny.Entry("llama-bpe" if pre == "tekken" else pre, GGUFValueType.STRING)
    hf.bpe_files(folder, tokenizer)
    if pre == "tekken":
        change(
            folder / "tokenizer.json",
            lambda json_: json_["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=TEKKEN),
        )
    return folder


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    how(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def saved_anew(folder: Path, target: Path, *added: str) -> Path:
    """The folder as transformers writes it after training, some tokens richer."""
    tokenizer = tokenizer_files.load_tokenizer(folder)
    for token in added:
        special = token.startswith("<|")
        tokenizer.add_tokens([AddedToken(token, special=special, normalized=False)], special_tokens=special)
    tokenizer.save_pretrained(target)
    return target


def with_model(folder: Path, arch: str, size: int) -> tuple[Path, Metadata]:
    """A GGUF file with the folder's tokenizer, and what was written of it."""
    model = hf.tiny_hf(folder / "model", arch, size, num_hidden_layers=1)
    checkpoint = checkpoint_of(model)
    written = vocabulary.from_folder(folder, checkpoint.config)
    path = folder / "model.gguf"
    write_model(path, checkpoint, written, {}, "F16")
    return path, written


def check_ids(folder: Path, arch: str, size: int) -> None:
    """llama.cpp and transformers agree on all texts."""
    path, _ = with_model(folder, arch, size)
    model, tokenizer = Model(path), tokenizer_files.load_tokenizer(folder)
    found = {text: model.tokenize_document(text) for text in TEXTS}
    model.close()
    assert found == {text: tokenizer.encode(text) for text in TEXTS}


def values(metadata: Metadata) -> dict[str, Any]:
    return {key: value.value for key, value in metadata.items()}


# From a GGUF file


def test_a_gguf_files_tokenizer_is_taken_verbatim(llama: Path) -> None:
    taken = vocabulary.from_gguf(llama)
    assert {key: tiny.Entry(value.value, value.type, value.sub_type) for key, value in taken.items()} == (
        tiny.tokenizer_of(llama)
    )
    assert vocabulary.size(taken) == BPE_SIZE


def test_what_nobody_here_knows_is_taken_too(tmp_path: Path) -> None:
    strange = tiny.byte_tokenizer() | {
        "tokenizer.ggml.pre": tiny.Entry("a-pre-tokenizer-of-tomorrow", GGUFValueType.STRING),
        "tokenizer.ggml.future": tiny.Entry([1.5, 2.5], GGUFValueType.ARRAY, GGUFValueType.FLOAT64),
        "tokenizer.chat_template.tool_use": tiny.Entry("ünï", GGUFValueType.STRING),
    }
    path = tiny.tiny_model(tmp_path / "model.gguf", vocab=strange)
    taken = vocabulary.from_gguf(path)
    assert {key: tiny.Entry(value.value, value.type, value.sub_type) for key, value in taken.items()} == strange


def test_hyperparameters_are_taken_verbatim(llama: Path) -> None:
    taken = vocabulary.hyperparameters_from_gguf(llama)
    fields = gguf.GGUFReader(llama).fields
    assert values(taken) == {key: field.contents() for key, field in fields.items() if key.startswith("llama.")}
    assert all(value.type is fields[key].types[0] for key, value in taken.items())


@pytest.mark.parametrize("damage", ["corrupted", "short", "text", "absent"])
def test_a_damaged_gguf_file(llama: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.gguf"
    if damage == "corrupted":
        tiny.corrupted(llama, path)
    elif damage == "short":
        path.write_bytes(llama.read_bytes()[:5000])
    elif damage == "text":
        tiny.not_gguf(path)
    with pytest.raises((ConversionError, ModelError), match=r"model\.gguf") as caught:
        vocabulary.from_gguf(path)
    assert "\n" not in str(caught.value)


# Byte-level BPE


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "tekken"])
def test_a_byte_level_bpe(tmp_path: Path, pre: str, arch: str) -> None:
    config = config_of(LlamaConfig if arch == "llama" else Qwen2Config)
    found, expected = vocabulary.from_folder(bpe_folder(tmp_path, pre), config), tiny.byte_tokenizer()
    expected["tokenizer.ggml.pre"] = tiny.Entry(pre, GGUFValueType.STRING)
    assert values(found) == {"tokenizer.ggml.add_eos_token": False} | {
        key: entry.value for key, entry in expected.items()
    }
    check_ids(tmp_path, arch, BPE_SIZE)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "tekken"])
def test_a_byte_level_bpe_saved_anew_with_more_tokens(tmp_path: Path, pre: str) -> None:
    folder = saved_anew(bpe_folder(tmp_path / "first", pre), tmp_path / "second", *ADDED)
    check_ids(folder, "llama", BPE_SIZE + len(ADDED))
    found = values(vocabulary.from_folder(folder, config_of(size=BPE_SIZE + len(ADDED))))
    assert found[TOKENS][BPE_SIZE:] == list(ADDED)
    assert found[KINDS][BPE_SIZE:] == [TokenType.USER_DEFINED, TokenType.USER_DEFINED, TokenType.CONTROL]
    assert found["tokenizer.chat_template"] == tiny.CHAT_TEMPLATE
    assert found["tokenizer.ggml.eos_token_id"] == 2


def test_merges_may_be_lists_or_texts(tmp_path: Path) -> None:
    found = vocabulary.from_folder(bpe_folder(tmp_path, "gpt-2"), config_of())
    change(
        tmp_path / "tokenizer.json",
        lambda json_: json_["model"].update(merges=[" ".join(pair) for pair in json_["model"]["merges"]]),
    )
    assert vocabulary.from_folder(tmp_path, config_of()) == found


def test_a_start_of_text_is_kept(tmp_path: Path) -> None:
    """Where transformers puts it before each text."""
    bpe_folder(tmp_path, "llama-bpe")
    start = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    processor = {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}, start, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    change(tmp_path / "tokenizer.json", lambda json_: json_.update(post_processor=processor))
    change(tmp_path / "tokenizer_config.json", lambda json_: json_.update(add_bos_token=True))
    assert tokenizer_files.load_tokenizer(tmp_path).encode("Hi")[0] == 1
    check_ids(tmp_path, "llama", BPE_SIZE)


def unknown_pre_tokenizer(folder: Path) -> Path:
    bpe_folder(folder, "gpt-2")
    change(folder / "tokenizer.json", lambda json_: json_.update(pre_tokenizer={"type": "Whitespace"}))
    return folder


def test_an_unknown_pre_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        vocabulary.from_folder(unknown_pre_tokenizer(tmp_path), config_of())
    assert str(caught.value) == (
        f"{tmp_path}/tokenizer.json: its pre-tokenizer (Whitespace) is not one of "
        "gpt-2, smollm, qwen2, llama-bpe, tekken: name llama.cpp's own with --pre"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "ByteLevel", "use_regex": True, "add_prefix_space": True, "trim_offsets": True},
        {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Removed", "invert": False},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
        None,
    ],
)
def test_a_pre_tokenizer_that_is_only_alike_is_refused(tmp_path: Path, changed: dict[str, Any] | None) -> None:
    """A space before the text, digits thrown away, a plain space to cut at, and nothing at all."""
    bpe_folder(tmp_path, "gpt-2")
    change(tmp_path / "tokenizer.json", lambda json_: json_.update(pre_tokenizer=changed))
    with pytest.raises(Unsupported, match="with --pre"):
        vocabulary.from_folder(tmp_path, config_of())


def test_an_unknown_pre_tokenizer_by_llama_cpps_name(tmp_path: Path) -> None:
    found = vocabulary.from_folder(unknown_pre_tokenizer(tmp_path), config_of(), pre="deepseek-llm")
    assert found["tokenizer.ggml.pre"].value == "deepseek-llm"
    assert found[TOKENS].value == tiny.byte_tokenizer()[TOKENS].value


@pytest.mark.parametrize("model", [models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0), models.WordPiece({"[UNK]": 0})])
def test_other_kinds_are_refused(tmp_path: Path, model: models.Model) -> None:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(Unsupported) as caught:
        vocabulary.from_folder(tmp_path, config_of())
    kind = type(model).__name__
    assert str(caught.value) == f"{tmp_path}/tokenizer.json: expected a BPE tokenizer, found {kind!r}"


# SentencePiece


@pytest.mark.parametrize("fast_only", [False, True], ids=["tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_sentencepiece(tmp_path: Path, arch: str, fast_only: bool) -> None:
    """Llama's, with a space before a text's first word, and Gemma's, without."""
    size = hf.sentencepiece_files(tmp_path, spaced=arch == "llama", fast_only=fast_only)
    check_ids(tmp_path, arch, size)


@pytest.mark.parametrize("fast_only", [False, True], ids=["tokenizer.model", "tokenizer.json"])
def test_sentencepieces_tokens(tmp_path: Path, fast_only: bool) -> None:
    size = hf.sentencepiece_files(tmp_path, fast_only=fast_only)
    found = values(vocabulary.from_folder(tmp_path, config_of(size=size)))
    assert found["tokenizer.ggml.model"] == "llama"
    assert found[TOKENS][:5] == ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    assert found[KINDS][0] in (TokenType.UNKNOWN, TokenType.CONTROL)
    assert found[KINDS][1:5] == [TokenType.CONTROL] * 4
    assert found[KINDS][found[TOKENS].index("<0x41>")] == TokenType.BYTE
    assert found[KINDS].count(TokenType.BYTE) == 256
    assert len(found[TOKENS]) == len(found[KINDS]) == len(found[SCORES]) == size
    merged = [score for score, token in zip(found[SCORES], found[TOKENS], strict=True) if len(token) > 1][261:]
    assert len(set(merged)) > 50
    assert merged == sorted(merged, reverse=True)  # the earlier a merge, the better
    special = {key: found[f"tokenizer.ggml.{key}_token_id"] for key in ("bos", "eos", "unknown")}
    assert special == {"bos": 1, "eos": 2, "unknown": 0}
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.chat_template"] == tiny.CHAT_TEMPLATE


@pytest.mark.parametrize("keep_model", [False, True], ids=["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_sentencepiece_saved_anew_with_more_tokens(tmp_path: Path, arch: str, keep_model: bool) -> None:
    """The new tokens stand in tokenizer.json only; with `keep_model` the base's own file lies beside it."""
    first, second = tmp_path / "first", tmp_path / "second"
    size = hf.sentencepiece_files(first, spaced=arch == "llama")
    saved_anew(first, second, *ADDED)
    if keep_model:
        shutil.copy(first / "tokenizer.model", second)
    check_ids(second, arch, size + len(ADDED))


def test_a_unigram_model_is_refused(tmp_path: Path) -> None:
    """llama.cpp joins pieces by their scores, as BPE does; a unigram model takes the most likely pieces of all."""
    text = tmp_path / "corpus.txt"
    text.write_text(tiny.CORPUS)
    train = sentencepiece.SentencePieceTrainer.train
    train(
        input=str(text),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=200,
        model_type="unigram",
        hard_vocab_limit=False,
    )
    with pytest.raises(Unsupported, match=r"tokenizer\.model: expected .*BPE.*, found .*(?i:unigram)"):
        vocabulary.from_folder(tmp_path, config_of())


def test_added_tokens_of_older_transformers(tmp_path: Path) -> None:
    """added_tokens.json, and tokenizer_config.json, which says of each whether it is special."""
    size = hf.sentencepiece_files(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<tool>": size, "<|extra|>": size + 1}))
    about = {"content": "<|extra|>", "special": True, "normalized": False}
    change(
        tmp_path / "tokenizer_config.json", lambda json_: json_["added_tokens_decoder"].update({str(size + 1): about})
    )
    found = values(vocabulary.from_folder(tmp_path, config_of(size=size + 2)))
    assert found[TOKENS][size:] == ["<tool>", "<|extra|>"]
    assert found[KINDS][size:] == [TokenType.USER_DEFINED, TokenType.CONTROL]


# Sizes and damage


FOLDERS: dict[str, Callable[[Path], int]] = {
    "bpe": lambda folder: vocabulary.size(vocabulary.from_folder(bpe_folder(folder, "gpt-2"), config_of())),
    "tokenizer.model": lambda folder: hf.sentencepiece_files(folder),
    "tokenizer.json": lambda folder: hf.sentencepiece_files(folder, fast_only=True),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path, kind: str) -> None:
    size = FOLDERS[kind](tmp_path)
    with pytest.raises(ConversionError) as caught:
        vocabulary.from_folder(tmp_path, config_of(size=size - 1))
    assert str(caught.value) == (
        f"{tmp_path}: the tokenizer has {size} tokens, the embedding {size - 1} rows: "
        "they must belong together; save model and tokenizer after resize_token_embeddings()"
    )


@pytest.mark.parametrize("file", ["added_tokens.json", "tokenizer_config.json"])
def test_an_added_token_outside_the_embedding_is_refused(tmp_path: Path, file: str) -> None:
    size = hf.sentencepiece_files(tmp_path)
    if file == "added_tokens.json":
        (tmp_path / file).write_text(json.dumps({"<tool>": size}))
    else:
        about = {"content": "<tool>", "special": False}
        change(tmp_path / file, lambda json_: json_["added_tokens_decoder"].update({str(size): about}))
    with pytest.raises(ConversionError, match=f"has {size + 1} tokens, the embedding {size} rows"):
        vocabulary.from_folder(tmp_path, config_of(size=size))


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_smaller_tokenizer_is_filled_up(tmp_path: Path, kind: str) -> None:
    size = FOLDERS[kind](tmp_path)
    exact = vocabulary.from_folder(tmp_path, config_of(size=size))
    found = vocabulary.from_folder(tmp_path, config_of(size=size + 2))
    assert vocabulary.size(found) == size + 2
    assert found[TOKENS].value[:size] == exact[TOKENS].value
    assert found[KINDS].value[size:] == [TokenType.UNUSED] * 2
    assert len(set(found[TOKENS].value)) == size + 2
    check_ids(tmp_path, "llama", size + 2)


@pytest.mark.parametrize("size", [BPE_SIZE, 49152])
@pytest.mark.parametrize("pre", ["smollm", "llama-bpe"])
def test_whether_a_text_has_a_start_is_always_said(tmp_path: Path, pre: str, size: int) -> None:
    """SmolLM's tokenizer_config.json does not say it, and llama.cpp's default goes by the pre-tokenizer's name."""
    bpe_folder(tmp_path, pre)
    change(tmp_path / "tokenizer_config.json", lambda json_: json_.pop("add_bos_token"))
    assert values(vocabulary.from_folder(tmp_path, config_of(size=size)))["tokenizer.ggml.add_bos_token"] is False


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        vocabulary.from_folder(tmp_path, config_of())
    assert str(caught.value) == f"{tmp_path}: expected tokenizer.json or tokenizer.model, found neither"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "tokenizer.model"])
def test_a_damaged_file(tmp_path: Path, file: str, content: bytes) -> None:
    if file == "tokenizer.model":
        hf.sentencepiece_files(tmp_path)
    else:
        bpe_folder(tmp_path, "gpt-2")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        vocabulary.from_folder(tmp_path, config_of())
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_transformers_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="transformers cannot read its tokenizer") as caught:
        tokenizer_files.load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


# Digests


@pytest.mark.parametrize("kind", FOLDERS)
def test_one_tokenizer_has_one_digest(tmp_path: Path, kind: str) -> None:
    """Read from a folder, from a GGUF file made of it, and from what transformers writes anew."""
    size = FOLDERS[kind](tmp_path)
    path, written = with_model(tmp_path, "llama", size)
    digest = vocabulary.digest(written)
    anew = saved_anew(tmp_path, tmp_path / "anew")
    assert vocabulary.digest(vocabulary.from_folder(anew, config_of(size=size))) == digest
    assert vocabulary.digest(vocabulary.from_gguf(path)) == digest


def test_other_tokenizers_have_other_digests(tmp_path: Path) -> None:
    def changed(key: str, *items: str) -> Metadata:
        return {**own, key: dataclasses.replace(own[key], value=list(items))}

    own = vocabulary.from_folder(bpe_folder(tmp_path, "gpt-2"), config_of())
    tokens, merges = own[TOKENS].value, own[MERGES].value
    others = [
        changed(TOKENS, *tokens[:-1], "other"),
        changed(TOKENS, *tokens[:-2], tokens[-1], tokens[-2]),
        changed(TOKENS, *tokens[:-1]),
        changed(MERGES, *merges[1:]),
        changed(MERGES, merges[1], merges[0], *merges[2:]),
        {key: value for key, value in own.items() if key != MERGES},
    ]
    digests = {vocabulary.digest(metadata) for metadata in (own, *others)}
    assert len(digests) == len(others) + 1
    template = {key: value for key, value in own.items() if key != "tokenizer.chat_template"}
    assert vocabulary.digest(template) == vocabulary.digest(own)  # it changes no ids
