"""A GGUF file as a folder that transformers reads, tokenizer included: `python -m convert.unpack FILE --out DIR`.

transformers unpacks the weights itself; the tokenizer that it builds from a GGUF file does not always give llama.cpp's
ids. This one is written from the file's own metadata, and nothing is written that does not give equal ids.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgft_edge.terminal import words
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import say

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

    from convert.header import Metadata

_SPECIAL_NAMES = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}


@click.command("unpack", context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=words.path, metavar="DIR", help="A folder that is not there.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32")
@click.option("--force", is_flag=True, help="Replace the folder.")
def command(file: Path, out: Path, dtype: str, force: bool) -> None:
    """Unpack a GGUF FILE into a folder that transformers reads."""
    import torch

    unpack(file, out, getattr(torch, dtype), force)
    say(out)


def unpack(file: Path, out: Path, dtype: Any, force: bool = False) -> None:
    """Write config, safetensors and tokenizer. Raises `Unsupported`, `ConversionError`, `NotProven`."""
    from convert import verify, vocabulary
    from convert.base import Base
    from convert.errors import NotProven
    from convert.staging import staged

    base = Base(str(file), file)
    with staged(out, force) as folder:
        write_tokenizer(folder, vocabulary.from_gguf(file))
        base.load(dtype).save_pretrained(folder)
        checks = verify.check_tokens(Base(str(folder), folder), file)
        if failed := [check for check in checks if not check.passed]:
            raise NotProven(f"{file}: no tokenizer with equal ids could be written: {failed[0].found}")


def write_tokenizer(folder: Path, metadata: Metadata) -> None:
    """Write tokenizer.json and tokenizer_config.json for a byte-level BPE, from GGUF metadata. Raises `Unsupported`."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
    from tokenizers.models import BPE

    from convert.errors import Unsupported

    def value(key: str) -> Any:
        return metadata[key].value if key in metadata else None

    pre = value("tokenizer.ggml.pre")
    if (kind := value("tokenizer.ggml.model")) != "gpt2":
        raise Unsupported(f"expected a byte-level BPE tokenizer (gpt2), found {kind!r}")
    tokens: list[str] = value("tokenizer.ggml.tokens")
    kinds: list[int] = value("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in value("tokenizer.ggml.merges")]
    known = {token: i for i, token in enumerate(tokens) if kinds[i] != _UNUSED}
    tokenizer = Tokenizer(BPE(known, merges, ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = _pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens(
        [
            AddedToken(token, special=kinds[i] == _CONTROL, normalized=False)
            for i, token in enumerate(tokens)
            if kinds[i] in (_CONTROL, _USER_DEFINED)
        ]
    )
    adds_bos = value("tokenizer.ggml.add_bos_token")
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if adds_bos is None:  # llama.cpp goes by the name
        adds_bos = pre == "llama-bpe"
    if adds_bos:
        bos = tokens[value("tokenizer.ggml.bos_token_id")]
        begin = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos}:1 $B:1", [(bos, known[bos])])
        tokenizer.post_processor = processors.Sequence([tokenizer.post_processor, begin])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, key in (("add_bos_token", "add_bos_token"), ("add_prefix_space", "add_space_prefix")):
        if (setting := value(f"tokenizer.ggml.{key}")) is not None:
            config[name] = setting
    for name, short in _SPECIAL_NAMES.items():
        if (token_id := value(f"tokenizer.ggml.{name}_token_id")) is not None:
            config[f"{short}_token"] = tokens[token_id]
    if (template := value("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")


_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5  # gguf.TokenType


def _pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokenizer that llama.cpp knows by this name."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    from convert.errors import Unsupported
    from convert.vocabulary import PRE_TOKENIZERS

    steps = next((steps for steps, known in PRE_TOKENIZERS.items() if known == name), None)
    if steps is None:
        raise Unsupported(f"expected one of the pre-tokenizers {', '.join(PRE_TOKENIZERS.values())}, found {name!r}")
    parts: list[PreTokenizer] = []
    for step in steps:
        if step == "digits":
            parts.append(Digits(individual_digits=True))
        elif step != "words":
            parts.append(Split(Regex(step), "isolated"))
    return Sequence([*parts, ByteLevel(add_prefix_space=False, use_regex="words" in steps)])


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv, "unpack")


if __name__ == "__main__":
    sys.exit(main())
