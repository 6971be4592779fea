"""Importance matrices against llama.cpp's own tool on the same tokens, which must be compiled first."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import hf
import numpy as np
import oracle
import pytest
import tiny

from convert import vocabulary
from convert.base import find_base
from convert.checkpoint import checkpoint_of
from convert.imatrix import ImportanceMatrix, collect, read_imatrix
from convert.model_gguf import write_model
from convert.samples import TEXT_CHUNK, samples_for

pytestmark = pytest.mark.slow
CHUNKS = 4
TOLERANCE = 1e-3  # relative, of each matrix's means; measured: 2e-4, from llama.cpp's half-precision KV cache
DATA = Path(__file__).parents[2] / "train" / "data" / "solution_guidance.train.jsonl"


@pytest.fixture(scope="module")
def llama_imatrix() -> Path:
    try:
        return oracle.compiled("llama-imatrix")
    except oracle.NoSource as e:
        pytest.skip(str(e))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n\n".join(f"{row['question']}\n{row['guidance']}" for row in rows)[:60_000], encoding="utf-8")
    return path


def theirs(tool: Path, model: Path, text: Path) -> ImportanceMatrix:
    out = text.with_name("theirs.gguf")
    options = ["-c", str(TEXT_CHUNK), "--chunks", str(CHUNKS), "--no-ppl", "--parse-special", "-t", "2"]
    subprocess.run([tool, "-m", model, "-f", text, "-o", out, *options], check=True, capture_output=True)
    return read_imatrix(out)


def assert_alike(ours: ImportanceMatrix, other: ImportanceMatrix) -> None:
    assert ours.sums.keys() == other.sums.keys()
    assert ours.tokens == other.tokens
    assert (ours.chunks, ours.chunk_tokens) == (other.chunks, other.chunk_tokens) == (CHUNKS, TEXT_CHUNK)
    expected = other.means()
    for name, means in ours.means().items():
        error = np.linalg.norm(means - expected[name]) / np.linalg.norm(expected[name])
        assert error <= TOLERANCE, name


def test_smollm2(smollm2: Path, llama_imatrix: Path, text: Path, tmp_path: Path) -> None:
    base = find_base(str(smollm2))
    model, file = base.load(), tmp_path / "model.gguf"
    given = vocabulary.hyperparameters_from_gguf(smollm2)
    write_model(file, checkpoint_of(model), vocabulary.from_gguf(smollm2), {}, "F32", given)
    samples = samples_for(file, text, CHUNKS)
    ours = collect(model, [sample.tokens for sample in samples], text.name)
    assert_alike(ours, theirs(llama_imatrix, file, text))


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "gemma3"])
def test_tiny_models(arch: str, llama_imatrix: Path, text: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "model", tmp_path / "model.gguf"
    vocab = tiny.byte_tokenizer()
    hf.bpe_files(folder, vocab)
    model = hf.tiny_hf(folder, arch, len(vocab["tokenizer.ggml.tokens"].value))
    checkpoint = checkpoint_of(model)
    write_model(file, checkpoint, vocabulary.from_folder(folder, checkpoint.config), {}, "F32")
    samples = samples_for(file, text, CHUNKS)
    ours = collect(model, [sample.tokens for sample in samples], text.name)
    assert_alike(ours, theirs(llama_imatrix, file, text))
