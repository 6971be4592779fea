"""Tiny random models, adapters and broken files in the GGUF format, made in a second and without a network.

The models are nonsense, but their greedy outputs vary and the best token is well ahead of the next one; control
tokens (so the end of a text too) are never the best. Rows are 256 wide, so that every K-quant applies.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

LAYERS = 2
HIDDEN = 256
FEED_FORWARD = 512
HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 64
SSM_INNER, SSM_STATE, SSM_CONV, SSM_TIME_STEP_RANK = 512, 16, 4, 16
CONTEXT = 2048

CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Control tokens of `byte_tokenizer`, ids 0 to 2; 1 begins and 2 ends a turn, as in SmolLM2."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

CORPUS = """\
A baker bakes twelve loaves of bread each morning and sells nine of them before noon. How many loaves are left after
five days? First find how many loaves are left on one day: take the number of loaves sold from the number of loaves
baked. Then multiply the number left each day by the number of days. The answer is the total number of loaves left.
There are three boxes with forty pencils in each box. Anna gives half of the pencils to her brother and then buys ten
more. How many pencils does she have now? Find the total number of pencils in the boxes. Divide the total by two to
find how many pencils remain. Add the pencils that she buys. The price of a ticket is eight dollars and the price of a
drink is two dollars. What is the total cost of four tickets and three drinks? Multiply the price of each by how many
there are, then add the two costs together. If a train travels sixty miles in an hour, how far does it travel in two
hours and a half? Multiply the speed by the time. The distance is the answer to the question.
"""


class Entry(NamedTuple):
    """The value of a metadata key and its GGUF types; `item_type` is that of an array's items."""

    value: Any
    type: GGUFValueType
    item_type: GGUFValueType | None = None


Tokenizer = dict[str, Entry]
"""All `tokenizer.*` metadata of a model, by key."""


def tokenizer_of(path: Path) -> Tokenizer:
    """The tokenizer of a GGUF file, chat template included, verbatim."""
    return {
        key: Entry(field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
        for key, field in GGUFReader(path).fields.items()
        if key.startswith("tokenizer.")
    }


def byte_tokenizer(merges: int = 256) -> Tokenizer:
    """A byte-level BPE of GPT-2's kind, learnt from `CORPUS`, with ChatML's control tokens: 515 tokens."""
    learnt = learn_merges(CORPUS, merges)
    pieces = [*_byte_letters().values(), *(left + right for left, right in learnt)]
    kinds = [gguf.TokenType.CONTROL] * len(CHATML_TOKENS) + [gguf.TokenType.NORMAL] * len(pieces)
    string, array, number = GGUFValueType.STRING, GGUFValueType.ARRAY, GGUFValueType.UINT32
    return {
        "tokenizer.ggml.model": Entry("gpt2", string),
        "tokenizer.ggml.pre": Entry("gpt-2", string),
        "tokenizer.ggml.tokens": Entry([*CHATML_TOKENS, *pieces], array, string),
        "tokenizer.ggml.token_type": Entry([int(kind) for kind in kinds], array, GGUFValueType.INT32),
        "tokenizer.ggml.merges": Entry([f"{left} {right}" for left, right in learnt], array, string),
        "tokenizer.ggml.bos_token_id": Entry(1, number),
        "tokenizer.ggml.eos_token_id": Entry(2, number),
        "tokenizer.ggml.padding_token_id": Entry(0, number),
        "tokenizer.ggml.add_bos_token": Entry(False, GGUFValueType.BOOL),
        "tokenizer.chat_template": Entry(CHAT_TEMPLATE, string),
    }


def learn_merges(text: str, count: int) -> list[tuple[str, str]]:
    """At most `count` merges of byte-pair encoding, most frequent first, ties by the alphabet.

    https://arxiv.org/abs/1508.07909, algorithm 1.
    """
    letters = _byte_letters()
    words = Counter(re.findall(r" ?[A-Za-z]+|[^A-Za-z]", text))
    splits = {tuple(letters[byte] for byte in word.encode()): times for word, times in words.items()}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for symbols, times in splits.items():
            for pair in pairwise(symbols):
                pairs[pair] += times
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        splits = {_merged(symbols, best): times for symbols, times in splits.items()}
    return merges


def _merged(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def _byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte: https://github.com/openai/gpt-2/blob/master/src/encoder.py"""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def tiny_model(
    path: Path,
    arch: str = "llama",
    seed: int = 0,
    vocab: Tokenizer | None = None,
    dtype: type[np.floating[Any]] = np.float16,
) -> Path:
    """Write a random model of architecture `arch` (llama, qwen2 or mamba) to `path`.

    `vocab` is `byte_tokenizer()` unless given; `dtype` is that of the matrices, vectors are float32.
    """
    vocab = byte_tokenizer() if vocab is None else vocab
    control = np.array(vocab["tokenizer.ggml.token_type"].value) == gguf.TokenType.CONTROL
    rng = np.random.default_rng(seed)
    writer = GGUFWriter(path, arch)
    writer.add_name(f"tiny {arch} {seed}")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if dtype is np.float16 else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(control))
    (_add_mamba_sizes if arch == "mamba" else _add_transformer_sizes)(writer)
    for key, entry in vocab.items():
        writer.add_key_value(key, entry.value, entry.type, entry.item_type)
    embedding = rng.normal(0, 1, (len(control), HIDDEN))
    output = rng.normal(0, 0.3, (len(control), HIDDEN))
    output[control] = 0
    writer.add_tensor("token_embd.weight", embedding.astype(dtype))
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    writer.add_tensor("output.weight", output.astype(dtype))
    layer = _mamba_layer if arch == "mamba" else _transformer_layer
    for block in range(LAYERS):
        for name, values in layer(rng, biased=arch == "qwen2"):
            keep = values.ndim == 1 or name in ("ssm_a", "ssm_conv1d.weight")
            writer.add_tensor(f"blk.{block}.{name}", values.astype(np.float32 if keep else dtype))
    return _written(writer, path)


def _add_transformer_sizes(writer: GGUFWriter) -> None:
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_rope_freq_base(10_000.0)


def _add_mamba_sizes(writer: GGUFWriter) -> None:
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(SSM_CONV)
    writer.add_ssm_inner_size(SSM_INNER)
    writer.add_ssm_state_size(SSM_STATE)
    writer.add_ssm_time_step_rank(SSM_TIME_STEP_RANK)


def _transformer_layer(rng: np.random.Generator, biased: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values (rows = outputs, columns = inputs) of one block of llama or, biased, qwen2."""
    yield "attn_norm.weight", np.ones(HIDDEN)
    for name, heads in (("attn_q", HEADS), ("attn_k", KV_HEADS), ("attn_v", KV_HEADS)):
        yield f"{name}.weight", rng.normal(0, 0.1, (heads * HEAD_SIZE, HIDDEN))
        if biased:
            yield f"{name}.bias", rng.normal(0, 0.1, heads * HEAD_SIZE)
    yield "attn_output.weight", rng.normal(0, 0.1, (HIDDEN, HEADS * HEAD_SIZE))
    yield "ffn_norm.weight", np.ones(HIDDEN)
    yield "ffn_gate.weight", rng.normal(0, 0.1, (FEED_FORWARD, HIDDEN))
    yield "ffn_up.weight", rng.normal(0, 0.1, (FEED_FORWARD, HIDDEN))
    yield "ffn_down.weight", rng.normal(0, 0.1, (HIDDEN, FEED_FORWARD))


def _mamba_layer(rng: np.random.Generator, biased: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of one block of mamba; the state's decay `ssm_a` starts as in https://arxiv.org/abs/2312.00752"""
    del biased
    yield "attn_norm.weight", np.ones(HIDDEN)
    yield "ssm_in.weight", rng.normal(0, 0.1, (2 * SSM_INNER, HIDDEN))
    yield "ssm_conv1d.weight", rng.normal(0, 0.5, (SSM_INNER, SSM_CONV))
    yield "ssm_conv1d.bias", rng.normal(0, 0.1, SSM_INNER)
    yield "ssm_x.weight", rng.normal(0, 0.1, (SSM_TIME_STEP_RANK + 2 * SSM_STATE, SSM_INNER))
    yield "ssm_dt.weight", rng.normal(0, 0.1, (SSM_INNER, SSM_TIME_STEP_RANK))
    yield "ssm_dt.bias", rng.normal(-2, 0.5, SSM_INNER)
    yield "ssm_a", -np.tile(np.arange(1.0, SSM_STATE + 1), (SSM_INNER, 1))
    yield "ssm_d", np.ones(SSM_INNER)
    yield "ssm_out.weight", rng.normal(0, 0.1, (HIDDEN, SSM_INNER))


ADAPTED = re.compile(r"blk\.\d+\.(attn_(q|k|v|output)|ffn_(gate|up|down)|ssm_(in|out))\.weight")


def tiny_adapter(
    path: Path,
    base_path: Path,
    rank: int = 4,
    alpha: float = 8,
    seed: int = 1,
    alora_invocation_tokens: list[int] | None = None,
    architecture: str | None = None,
    dtype: type[np.floating[Any]] = np.float32,
) -> Path:
    """Write a random LoRA for every linear layer of the model in `base_path`, as llama.cpp's converter would.

    `lora_a` is (rank, inputs), `lora_b` (outputs, rank), both `dtype`: https://arxiv.org/abs/2106.09685 with
    llama.cpp's `convert_lora_to_gguf.py`. With `alora_invocation_tokens` the adapter is an activated one.
    `architecture` names another architecture than the base's.
    """
    base = GGUFReader(base_path)
    rng = np.random.default_rng(seed)
    writer = GGUFWriter(path, architecture or base.fields["general.architecture"].contents())
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    if alora_invocation_tokens is not None:
        key = gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS
        writer.add_key_value(key, alora_invocation_tokens, GGUFValueType.ARRAY, GGUFValueType.UINT32)
    for tensor in base.tensors:
        if ADAPTED.fullmatch(tensor.name):
            inputs, outputs = (int(size) for size in tensor.shape)
            writer.add_tensor(f"{tensor.name}.lora_a", rng.normal(0, 0.15, (rank, inputs)).astype(dtype))
            writer.add_tensor(f"{tensor.name}.lora_b", rng.normal(0, 0.15, (outputs, rank)).astype(dtype))
    return _written(writer, path)


def _written(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def truncated(path: Path, out: Path) -> Path:
    """The first half of a file, as an interrupted download leaves it."""
    out.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return out


def corrupted(path: Path, out: Path) -> Path:
    """A GGUF file whose first metadata key is flipped bit by bit, its length first: no reader can go on."""
    data = bytearray(path.read_bytes())
    data[24:56] = (byte ^ 0xFF for byte in data[24:56])  # after magic, version and two counts
    out.write_bytes(data)
    return out


def not_gguf(out: Path) -> Path:
    """A text."""
    out.write_text("This is not a model.\n" * 100)
    return out


def wrong_architecture(out: Path) -> Path:
    """A sound GGUF file of an architecture that llama.cpp does not know."""
    writer = GGUFWriter(out, "nonesuch")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((8, HIDDEN), np.float32))
    return _written(writer, out)
