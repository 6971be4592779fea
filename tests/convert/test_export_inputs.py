"""What an export takes beside its source: bases from everywhere, importance matrices, another converter."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hf
import numpy as np
import pytest
import tiny
import torch
from engines import TOLERANCE
from exports import SCRIPT, adapted, assert_alike, card, difference, load, metadata, tensors, types, workshop
from oracle import NoSource, llama_cpp_source
from servers import LocalServer, QuietHandler, serving
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, StableLmConfig

from sgft_edge.llama.model import Model
from sgft_edge.store import digests, places


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with workshop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


# ---------------------------------------------------------------- where the base comes from


def test_base_from_a_gguf_file(shop, tmp_path):
    """Its tokenizer is copied verbatim; the merged file is that which the base's folder gives."""
    lora = shop.lora()
    options = ("--format", "both", "--quant", "F32", "--adapter-type", "F32")
    assert shop.export(lora, tmp_path / "folder", *options) == 0
    assert shop.export(lora, tmp_path / "file", *options, "--base", shop.plain()) == 0
    for name in ("lora-F32.gguf", "lora-lora-F32.gguf"):
        ours, theirs = tensors(tmp_path / "file" / name), tensors(tmp_path / "folder" / name)
        assert ours.keys() == theirs.keys()
        assert all(np.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)
    copied = {key: value for key, value in metadata(shop.plain()).items() if key.startswith(("tokenizer.", "llama."))}
    made = metadata(tmp_path / "file" / "lora-F32.gguf")
    assert {key: made[key] for key in copied} == copied


def test_base_by_a_known_name(shop, tmp_path):
    lora, options = shop.lora(), ("--format", "adapter", "--base", "tiny-base")
    places.add("tiny-base", shop.plain())
    assert shop.export(lora, tmp_path / "out", *options) == 0
    assert_alike(adapted(shop.base(), lora), shop.plain(), tmp_path / "out" / "lora-lora-F16.gguf")
    assert card(tmp_path / "out")["origin"]["base"] == "tiny-base"
    assert card(tmp_path / "out")["origin"]["base_digest"] == digests.file_digest(shop.plain())


def test_quantized_base_is_unpacked_and_quantized_once(shop, tmp_path):
    whole, packed = shop.plain(), shop.plain().with_name("llama-Q8_0.gguf")
    assert (
        shop.export(shop.lora(), tmp_path / "merged", "--base", packed, "--quant", "F32,Q4_0", "--min-agreement", 0)
        == 0
    )
    peft = adapted(shop.base(), shop.lora())
    assert TOLERANCE / 100 < difference(peft, tmp_path / "merged" / "lora-F32.gguf") < 20 * TOLERANCE
    assert "it is quantized already (Q8_0" in shop.refusal(packed, "--quant", "Q4_0")
    assert shop.export(packed, tmp_path / "again", "--quant", "Q4_0", "--allow-requantize", "--min-agreement", 0) == 0
    assert "Q4_0" in types(tmp_path / "again" / "llama-q8_0-Q4_0.gguf")
    assert shop.export(shop.plain(), tmp_path / "plain", "--quant", "F32") == 0
    assert all(
        np.array_equal(value, tensors(whole)[name])
        for name, value in tensors(tmp_path / "plain" / "llama-f32-F32.gguf").items()
    )


class Hub(QuietHandler):
    """What huggingface_hub asks for, from the folder in `server.folder`; `server.asked` notes the files."""

    def do_HEAD(self) -> None:
        commit, folder = "c0ffee00" * 5, self.server.folder
        names = sorted(path.name for path in folder.iterdir())
        content, headers = b"", {}
        if self.path.startswith("/api/models/owner/Tiny-Base/tree/"):
            files = [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": "0" * 40} for n in names]
            content = json.dumps(files).encode()
        elif self.path.startswith("/api/models/owner/Tiny-Base"):
            about = {"id": "owner/Tiny-Base", "sha": commit, "siblings": [{"rfilename": name} for name in names]}
            content = json.dumps(about).encode()
        elif (name := self.path.rpartition("/")[2]) in names and f"/{commit}/" in self.path:
            self.server.asked.add(name)
            content = (folder / name).read_bytes()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{name}"'}
        self.send_response(200 if content else 404)
        for key, value in {**headers, "Content-Length": str(len(content)), "Content-Type": "application/json"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_GET = do_HEAD


def test_base_from_the_hub(shop, tmp_path):
    """From a stand-in on this machine; pickles are not even fetched."""
    lora = shop.lora()
    remote = shutil.copytree(shop.base(), tmp_path / "remote")
    (remote / "pytorch_model.bin").write_bytes(b"a pickle")
    with serving(LocalServer(Hub)) as server:
        server.folder, server.asked = remote, set()
        private = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub")}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        options = ("--format", "adapter", "--base", "owner/Tiny-Base")
        done = subprocess.run(
            [sys.executable, SCRIPT, *shop.arguments(lora, tmp_path / "out", *options)],
            env=inherited | private | {"NO_PROXY": "*"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert server.asked == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert card(tmp_path / "out")["origin"]["base"] == "owner/Tiny-Base"
    assert shop.export(lora, tmp_path / "here", "--format", "adapter") == 0
    ours, theirs = (tensors(tmp_path / out / "lora-lora-F16.gguf") for out in ("out", "here"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


# ---------------------------------------------------------------- importance matrix, other converters


@pytest.fixture(scope="module")
def without_matrix(shop):
    assert shop.export(shop.base(), shop.folder / "none", "--quant", "Q4_K_M", "--min-agreement", 0) == 0
    return tensors(shop.folder / "none" / "llama-Q4_K_M.gguf")


def test_importance_matrix_from_problems_texts_and_files(shop, tmp_path, without_matrix):
    text = tmp_path / "text.txt"
    text.write_text(tiny.CORPUS)
    options = ("--quant", "Q4_K_M", "--min-agreement", 0, "--imatrix")
    made = {}
    for name, source in (
        ("problems", shop.data),
        ("text", text),
        ("file", tmp_path / "problems" / "llama-imatrix.gguf"),
    ):
        assert shop.export(shop.base(), tmp_path / name, *options, source) == 0
        made[name] = tensors(tmp_path / name / "llama-Q4_K_M.gguf")
        assert card(tmp_path / name)["origin"]["imatrix"] == source.name
        assert metadata(tmp_path / name / "llama-Q4_K_M.gguf")["sgft.imatrix"] == source.name
    matrix = tensors(tmp_path / "problems" / "llama-imatrix.gguf")
    assert len(matrix) == 2 * 7 * tiny.LAYERS
    assert not (tmp_path / "file" / "llama-imatrix.gguf").exists()

    def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
        return all(np.array_equal(one[name], other[name]) for name in one)

    assert same(made["problems"], made["file"])
    assert not same(made["problems"], made["text"])
    assert not same(made["problems"], without_matrix)
    assert not same(made["text"], without_matrix)


def test_without_importance_matrix(shop, without_matrix):
    assert len(without_matrix) == 9 * tiny.LAYERS + 3
    assert card(shop.folder / "none")["origin"]["imatrix"] is None
    assert not (shop.folder / "none" / "llama-imatrix.gguf").exists()


@pytest.fixture(scope="module")
def checkout():
    """llama.cpp's source."""
    try:
        return llama_cpp_source()
    except NoSource as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module")
def smol(shop, smollm2):
    """Makes a folder with SmolLM2's tokenizer, which llama.cpp's script knows by its digest; tells its size."""
    vocab = tiny.tokenizer_of(smollm2)

    def make(name: str) -> tuple[Path, int]:
        hf.bpe_files(shop.folder / name, vocab)
        return shop.folder / name, len(vocab["tokenizer.ggml.tokens"].value)

    return make


@pytest.fixture(scope="module")
def stable(smol):
    """An architecture that is not written here."""
    folder, size = smol("stable")
    torch.manual_seed(0)
    config = StableLmConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=tiny.CONTEXT,
        initializer_range=0.1,
        tie_word_embeddings=False,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_converter_of_a_checkout(shop, tmp_path, stable, checkout):
    assert shop.refusal(stable).endswith("found StableLmForCausalLM: --converter PATH runs a llama.cpp checkout's own")
    assert shop.export(stable, tmp_path / "out", "--converter", checkout, "--quant", "F32,Q8_0") == 0
    assert_alike(load(stable), tmp_path / "out" / "stable-F32.gguf")
    made = Model(tmp_path / "out" / "stable-Q8_0.gguf")
    try:
        assert made.architecture == "stablelm"
        assert made.metadata("sgft.base_digest") == card(tmp_path / "out")["origin"]["base_digest"]
    finally:
        made.close()


def test_converter_takes_finished_matrices_only(shop, stable, checkout):
    options = ("--converter", checkout, "--quant", "Q4_0", "--imatrix", shop.data)
    assert shop.refusal(stable, *options, status=2).startswith("--imatrix: with --converter expected 'none' or")


def test_converter_with_an_adapter(shop, tmp_path, smol, checkout):
    """Of an architecture that is written here too, so that PEFT's adapter fits."""
    folder, size = smol("wide")
    hf.tiny_hf(folder, "llama", size, hidden_size=64, intermediate_size=64)
    lora = shop.lora("wide-lora", "wide")
    assert shop.export(lora, tmp_path / "out", "--converter", checkout, "--quant", "F32") == 0
    assert_alike(adapted(folder, lora), tmp_path / "out" / "wide-lora-F32.gguf")


# ---------------------------------------------------------------- bases in 4 bits

FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_base_in_4_bits_needs_bitsandbytes(shop, tmp_path):
    folder = shutil.copytree(shop.base(), tmp_path / "packed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": FOUR_BITS}))
    for error in (shop.refusal(folder), shop.refusal(shop.lora(), "--base", folder)):
        assert "pip install -U bitsandbytes" in error


def test_base_in_4_bits_is_unpacked(shop, tmp_path):
    """Alone and under an adapter; what it is compared with is its own unpacked weights."""
    pytest.importorskip("bitsandbytes")
    packed = AutoModelForCausalLM.from_pretrained(
        shop.base(), quantization_config=BitsAndBytesConfig(**FOUR_BITS), device_map="cpu"
    )
    folder = shutil.copytree(shop.base(), tmp_path / "packed")
    (folder / "model.safetensors").unlink()
    packed.save_pretrained(folder)
    assert shop.export(folder, tmp_path / "alone", "--quant", "F32") == 0
    assert shop.export(shop.lora(), tmp_path / "merged", "--base", folder, "--quant", "F32") == 0
    assert difference(load(shop.base()), tmp_path / "alone" / "packed-F32.gguf") > 2 * TOLERANCE
