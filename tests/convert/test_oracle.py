"""Our converters against llama.cpp's own scripts: equal metadata, and tensors that are equal bit by bit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hf
import pytest
import torch
from conftest import USER_FOLDERS
from oracle import (
    NoSource,
    Reader,
    Scripts,
    assert_same_adapter,
    assert_same_model,
    llama_cpp_source,
    running,
    tokenizer_of,
)

from convert import vocabulary
from convert.adapter import attach, read_adapter
from convert.base import Base
from convert.checkpoint import checkpoint_of, open_checkpoint
from convert.lora_gguf import write_lora
from convert.model_gguf import write_model
from sgft_edge.store.manifest import Manifest
from sgft_edge.store.places import locate

TYPES = ("F32", "F16", "BF16", "Q8_0")
PIECES = 400  # of the SentencePiece vocabularies
Tokenizers = Callable[[str, Path], int]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    """llama.cpp's scripts; a test that needs them is skipped where their source can't be had."""
    try:
        source = llama_cpp_source()
    except NoSource as e:
        pytest.skip(str(e))
    with (tmp_path_factory.mktemp("oracle") / "log.txt").open("w") as log, running(source, log) as started:
        yield started


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A folder for large files: pytest would keep those of three runs."""
    with TemporaryDirectory(dir=tmp_path) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Tokenizers:
    """Puts a tokenizer's files into a folder and tells how many tokens it has.

    `spaced` and `plain` are SentencePiece, as Llama's and Gemma's; the scripts know byte-level ones by a digest of
    what they do, so those are real: `smollm`, and `llama-bpe` and `qwen2` from llama.cpp's source.
    """
    made: dict[str, tuple[Path, int]] = {}

    def make(name: str) -> tuple[Path, int]:
        folder = tmp_path_factory.mktemp(name)
        if name in ("spaced", "plain"):
            return folder, hf.sentencepiece_files(folder, name == "spaced", PIECES)
        if name == "smollm":
            path = request.getfixturevalue("smollm2")
        else:
            path = request.getfixturevalue("scripts").source / "models" / f"ggml-vocab-{name}.gguf"
        vocab = tokenizer_of(path)
        hf.bpe_files(folder, vocab)
        return folder, len(vocab["tokenizer.ggml.tokens"].value)

    def copy(name: str, folder: Path) -> int:
        if name not in made:
            made[name] = make(name)
        shutil.copytree(made[name][0], folder, dirs_exist_ok=True)
        return made[name][1]

    return copy


@dataclass(frozen=True)
class Case:
    """A tiny model: `config` and `settings` are changes to its config.json and tokenizer_config.json.

    `padding` rows of the embedding have no token; `added` are tokens in added_tokens.json for the first of them.
    """

    arch: str
    type: str
    tokenizer: str = "plain"
    dtype: torch.dtype = torch.float32
    shard: str | None = None
    padding: int = 0
    added: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


NARROW = {"hidden_size": 64, "tie_word_embeddings": True}  # for vocabularies of a real model's size
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 512}
GEMMA3_ROPE = {
    "full_attention": LINEAR | {"rope_theta": 1_000_000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0},
}

ADDED = ("<|tool|>", "word", hf.SPACE * 2)

CASES = {
    **{
        f"{arch} {type_name}": Case(arch, type_name, "spaced" if arch in ("llama", "mistral") else "plain")
        for arch in hf.ARCHITECTURES
        for type_name in TYPES
    },
    **{f"llama smollm {type_name}": Case("llama", type_name, "smollm", config=NARROW) for type_name in TYPES},
    "llama smollm padded": Case("llama", "F16", "smollm", padding=64, config=NARROW),
    "llama llama-bpe": Case("llama", "Q8_0", "llama-bpe", config=NARROW | {"rope_parameters": LLAMA3}),
    "qwen2 qwen2": Case("qwen2", "BF16", "qwen2", config=NARROW),
    "qwen3 qwen2": Case("qwen3", "F16", "qwen2", config=NARROW),
    **{f"{arch} tied": Case(arch, "F16", config={"tie_word_embeddings": True}) for arch in hf.ARCHITECTURES},
    **{
        f"{arch} from {dtype} {type_name}": Case(arch, type_name, dtype=getattr(torch, dtype))
        for arch, dtype, types in (
            ("llama", "bfloat16", TYPES),
            ("llama", "float16", TYPES),
            ("gemma3", "bfloat16", ("F16",)),
            ("qwen2", "float16", ("F16",)),
        )
        for type_name in types
    },
    "llama shards": Case("llama", "F16", shard="1MB"),
    "llama linear rope": Case("llama", "F32", config={"rope_parameters": LINEAR}),
    "llama llama3 rope": Case("llama", "F32", config={"rope_parameters": LLAMA3, "hidden_size": 512}),
    "qwen2 yarn rope": Case("qwen2", "F32", config={"rope_parameters": YARN}),
    "gemma3 linear rope": Case("gemma3", "F32", config={"rope_parameters": GEMMA3_ROPE}),
    "gemma3 soft cap": Case("gemma3", "F32", config={"final_logit_softcapping": 30.0}),
    "llama biases": Case("llama", "F16", config={"attention_bias": True, "mlp_bias": True}),
    "llama all heads": Case("llama", "F32", config={"num_key_value_heads": 4}),
    "llama wide heads": Case("llama", "F32", config={"head_dim": 128}),
    "mistral no head size": Case("mistral", "F32", config={"head_dim": None}),
    "llama rows of no whole blocks": Case("llama", "Q8_0", config={"intermediate_size": 520}),
    "gemma3 rows of no whole blocks": Case("gemma3", "Q8_0", config={"intermediate_size": 520}),
    "mistral padded": Case("mistral", "F16", "spaced", padding=48),
    "gemma3 padded": Case("gemma3", "F16", padding=48),
    "mistral added tokens": Case("mistral", "F32", padding=8, added=ADDED),
    "mistral added tokens, decoded": Case(
        "mistral",
        "F32",
        padding=8,
        settings={
            "added_tokens_decoder": {
                str(PIECES + i): {"content": token, "special": special}
                for i, (token, special) in enumerate(product(ADDED, (True, False)))
            }
        },
    ),
    "mistral space prefix": Case("mistral", "F32", "spaced", settings={"add_prefix_space": True}),
    "llama no space prefix": Case("llama", "F32", settings={"add_prefix_space": False}),
    "mistral settings against tokenizer.json": Case("mistral", "F32", settings={"add_bos_token": False}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tiny_models(case: Case, room: Path, scripts: Scripts, tokenizers: Tokenizers) -> None:
    folder = room / "model"
    size = tokenizers(case.tokenizer, folder)
    model = hf.tiny_hf(folder, case.arch, size + case.padding, dtype=case.dtype, **case.config)
    if case.shard:
        model.save_pretrained(folder, max_shard_size=case.shard)
        assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    if case.added:
        (folder / "added_tokens.json").write_text(json.dumps({token: size + i for i, token in enumerate(case.added)}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | case.settings))
    assert_same_conversion(folder, case.type, scripts, room)


def assert_same_conversion(folder: Path, type_name: str, scripts: Scripts, room: Path) -> None:
    """Convert a model's folder both ways and compare."""
    checkpoint = open_checkpoint(folder)
    tokenizer = vocabulary.from_folder(folder, checkpoint.config)
    write_model(room / "ours.gguf", checkpoint, tokenizer, {}, type_name)
    assert_same_model(room / "ours.gguf", scripts.convert_model(folder, room / "theirs.gguf", type_name))


ADAPTERS = {
    **{f"{arch} {type_name}": (arch, type_name, {}) for arch in hf.ARCHITECTURES for type_name in ("F32", "F16")},
    "llama Q8_0": ("llama", "Q8_0", {"r": 32, "lora_alpha": 16}),
    "llama Q8_0, rank below a block": ("llama", "Q8_0", {"r": 8}),
    "llama embeddings": ("llama", "F32", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "qwen2 invocation tokens": ("qwen2", "F16", {"alora_invocation_tokens": [7, 1, 300]}),
    "mistral rank by layer": ("mistral", "F16", {"rank_pattern": {"q_proj": 8, r"layers\.1\.mlp\.down_proj": 2}}),
    "qwen3 some layers": ("qwen3", "F32", {"layers_to_transform": [1], "target_modules": ["k_proj", "v_proj"]}),
}


@pytest.mark.parametrize(("arch", "type_name", "changes"), ADAPTERS.values(), ids=ADAPTERS)
def test_tiny_adapters(arch: str, type_name: str, changes: dict[str, Any], room: Path, scripts: Scripts) -> None:
    lora = hf.tiny_lora(room / "lora", hf.tiny_hf(room / "base", arch, PIECES), **changes)
    adapter = read_adapter(lora)
    write_lora(room / "ours.gguf", attach(Base("base", room / "base").load(), adapter), adapter, {}, type_name)
    theirs = scripts.convert_lora(lora, room / "base", room / "theirs.gguf", type_name)
    assert_same_adapter(room / "ours.gguf", theirs)


def test_smollm2(smollm2: Path, room: Path, scripts: Scripts) -> None:
    assert_same_unpacked(smollm2, room, scripts)


@pytest.mark.slow
def test_qwen_coder(qwen_coder: Path, room: Path, scripts: Scripts) -> None:
    assert_same_unpacked(qwen_coder, room, scripts)


@pytest.fixture
def qwen_coder(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Qwen2.5 Coder: the file in SGFT_EDGE_TEST_QWEN, else the user's own; a test that needs it is skipped without."""
    if named := os.environ.get("SGFT_EDGE_TEST_QWEN"):
        return Path(named)
    for name, value in USER_FOLDERS.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    found = locate(Manifest.load().get("qwen2.5-coder-0.5b"))
    if found is None:
        pytest.skip("qwen2.5-coder-0.5b is not on this machine: `sgft-edge models pull qwen2.5-coder-0.5b`")
    return found


def assert_same_unpacked(path: Path, room: Path, scripts: Scripts) -> None:
    """Unpack a GGUF file; what becomes of its folder is equal both ways, and what is copied is what it was."""
    model = Base(path.name, path).load()
    tokenizer, hyperparameters = vocabulary.from_gguf(path), vocabulary.hyperparameters_from_gguf(path)
    write_model(room / "copied.gguf", checkpoint_of(model), tokenizer, {}, "F16", hyperparameters)
    copied, original = Reader(room / "copied.gguf"), Reader(path)
    prefixes = ("tokenizer.", f"{original.fields['general.architecture'].contents()}.", "general.architecture")
    assert copied.metadata(prefixes) == original.metadata(prefixes)
    assert {tensor.name: tensor.shape.tolist() for tensor in copied.tensors} == {
        tensor.name: tensor.shape.tolist() for tensor in original.tensors
    }
    hf.bpe_files(room / "model", tokenizer_of(path))
    model.save_pretrained(room / "model")
    assert_same_conversion(room / "model", "F16", scripts, room)
