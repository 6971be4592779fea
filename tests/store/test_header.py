"""Headers of GGUF files: what ggml's and gguf's readers find in sound ones, and that damage is one error, soon."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from sgft_edge.errors import ModelError
from sgft_edge.solving.sizes import Sizes
from sgft_edge.store.header import Header, peek, read_header

SMOLLM2 = Path("~/.local/share/sgft-edge/models/SmolLM2-135M-Instruct.Q4_1.gguf").expanduser()
UINT8, UINT32, STRING, ARRAY = 0, 4, 8, 9
SECONDS = 5  # far more than any header of these takes


def text(content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, raw: bytes) -> bytes:
    return struct.pack("<I", kind) + raw


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return value(ARRAY, struct.pack("<IQ", kind, count) + raw)


def tensor(name: str, *shape: int, kind: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)


def header(*parts: bytes, tensors: int = 0, keys: int = 0, version: int = 3, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(f"{order}IQQ", version, tensors, keys) + b"".join(parts)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "file.gguf"
    path.write_bytes(content)
    return path


def refusal(folder: Path, content: bytes) -> str:
    path = written(folder, content)
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < SECONDS
    assert peak < 10**6 + 10 * len(content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert str(path) in str(caught.value)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------- sound files


def agrees_with_the_gguf_package(path: Path) -> Header:
    found, other = read_header(path), gguf.GGUFReader(path)
    fields = {key: field for key, field in other.fields.items() if not key.startswith("GGUF.")}
    assert list(found.metadata) == list(fields)
    for key, field in fields.items():
        ours = found.metadata[key]
        assert ours.type == field.types[-1]
        assert ours.items() == (field.contents() if ours.count is not None else [field.contents()]), key
    assert [(t.name, t.shape[::-1], t.type) for t in found.tensors] == [
        (t.name, tuple(t.shape), t.tensor_type) for t in other.tensors
    ]
    assert [found.data_start + t.offset for t in found.tensors] == [t.data_offset for t in other.tensors]
    return found


@pytest.mark.parametrize("name", ["llama", "qwen2", "mamba", "lora"])
def test_sound_files_are_read_as_the_gguf_package_reads_them(tiny_files: Path, name: str) -> None:
    found = agrees_with_the_gguf_package(tiny_files / f"{name}.gguf")
    assert found.text("general.architecture") == name.replace("lora", "llama")


@pytest.mark.skipif(not SMOLLM2.is_file(), reason="SmolLM2 is not on this machine")
def test_a_real_model(tmp_path: Path) -> None:
    content = SMOLLM2.read_bytes()[: 2**22]
    found = read_header(SMOLLM2)
    assert found == read_header(written(tmp_path, content)), "the header alone is read"
    assert found.length("tokenizer.ggml.tokens") == 49152
    assert found.numbers("llama.block_count") == [30]
    agrees_with_the_gguf_package(SMOLLM2)


def test_values_of_all_types(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "x")
    expected = {
        "UINT8": 255, "INT8": -128, "UINT16": 65535, "INT16": -32768, "UINT32": 2**32 - 1, "INT32": -(2**31),
        "FLOAT32": 0.5, "BOOL": True, "UINT64": 2**64 - 1, "INT64": -(2**63), "FLOAT64": 0.1, "STRING": "ünï",
    }  # fmt: skip
    for kind, one in expected.items():
        writer.add_key_value(kind, one, gguf.GGUFValueType[kind])
        writer.add_key_value(f"{kind}s", [one, one], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType[kind])
    writer.add_tensor("t", np.zeros((3, 2), np.float32))
    found = read_header(tiny._written(writer, path))
    for kind, one in expected.items():
        assert found.metadata[kind].items() == [one]
        assert found.metadata[f"{kind}s"].items() == [one, one]
        whole = "INT" in kind
        assert found.numbers(kind) == ([one] if whole else [0])
        assert found.numbers(f"{kind}s") == ([one, one] if whole else [0])
        assert (found.length(kind), found.length(f"{kind}s")) == (0, 2)
        assert found.text(kind) == (one if kind == "STRING" else None)
    assert found.tensors[0].shape == (3, 2)
    assert (found.numbers("absent"), found.length("absent"), found.text("absent")) == ([0], 0, None)


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions(tmp_path: Path, version: int) -> None:
    content = header(text("a"), value(STRING, text(b"\xff!")), keys=1, version=version)
    assert peek(written(tmp_path, content), "a") == "�!"


def test_the_bytes_that_are_repacked_are_those_of_ggml(tmp_path: Path) -> None:
    for kind in (2, 10, 12, 20, 39):  # those that are repacked on all processors
        weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        content = header(tensor("a", 4 * weights, 3, kind=kind), tensor("b", 7), tensors=2)
        assert Sizes.read(written(tmp_path, content)).repacked == 12 * size


# ---------------------------------------------------------------------------------------------------------- damage

A = text("a")
BAD = {
    "nothing": (header()[:12], "ends too early"),
    "version 1": (header(version=1), "its version is 1"),
    "big-endian": (header(version=3, order=">"), "it is big-endian"),
    "keys": (header(keys=2**63), "announces"),
    "tensors": (header(tensors=2**64 - 1), "announces"),
    "key": (header(struct.pack("<Q", 2**63), keys=1), "ends too early"),
    "no key": (header(text(""), value(UINT8, b"\0"), keys=1), "a key has no name"),
    "a key twice": (header(A, value(UINT8, b"\0"), A, value(UINT8, b"\0"), keys=2), "two of the key 'a'"),
    "a key in no UTF-8": (header(text(b"\xff"), value(UINT8, b"\0"), keys=1), "damaged"),
    "unknown type": (header(A, value(13, bytes(64)), keys=1), "unknown type 13"),
    "items of unknown type": (header(A, array(99, 1, bytes(64)), keys=1), "unknown type 99"),
    "an array of arrays": (header(A, array(ARRAY, 1, bytes(64)), keys=1), "unknown type 9"),
    "long text": (header(A, value(STRING, struct.pack("<Q", 2**64 - 1)), keys=1), "ends too early"),
    "long array": (header(A, array(UINT8, 2**64 - 1), keys=1), "ends too early"),
    "long array of texts": (header(A, array(STRING, 2**64 - 1, bytes(800)), keys=1), "ends too early"),
    "long text in an array": (header(A, array(STRING, 2, text(b"")[:-1] + b"\xff" + text("")), keys=1), "damaged"),
    "alignment": (header(text("general.alignment"), value(UINT32, bytes(4)), keys=1), "power of two"),
    "alignment 3": (header(text("general.alignment"), value(UINT32, b"\3\0\0\0"), keys=1), "power of two"),
    "a short alignment": (header(text("general.alignment"), value(UINT8, b"\x20"), keys=1), "power of two"),
    "a tensor twice": (header(tensor("a", 1), tensor("a", 1), tensors=2), "two of the tensor 'a'"),
    "dimensions": (header(A, struct.pack("<I", 2**32 - 1), tensors=1), "dimensions"),
    "an endless tensor": (header(tensor("a", 2**63, 2**63), tensors=1), "shape"),
    "an empty tensor": (header(tensor("a", 0), tensors=1), "shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage(tmp_path: Path, name: str) -> None:
    content, reason = BAD[name]
    assert reason in refusal(tmp_path, content)
    refusal(tmp_path, content + b"\x01" * 100_000 if "early" not in reason else content)


def test_a_header_of_texts_alone_ends_soon(tmp_path: Path) -> None:
    """Where the file is large, what it announces is there: it costs time in proportion, up to 64 MiB."""
    path = tmp_path / "file.gguf"
    with path.open("wb") as file:
        file.write(header(A, array(STRING, 2**23 - 100), keys=4))
        file.truncate(2**27)  # a sparse file: all lengths are 0
    began = time.process_time()
    with pytest.raises(ModelError, match="a key has no name"):
        read_header(path)
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("name", ["llama", "lora"])
def test_a_file_cut_off_anywhere_is_refused(tiny_files: Path, tmp_path: Path, name: str) -> None:
    whole = (tiny_files / f"{name}.gguf").read_bytes()
    end = whole.index(read_header(tiny_files / f"{name}.gguf").tensors[-1].name.encode())
    for length in {*range(200), *range(200, end, 97), end}:
        with pytest.raises(ModelError):
            read_header(written(tmp_path, whole[:length]))


@given(st.data())
def test_any_flipped_byte_is_a_result_or_a_model_error(tiny_files: Path, data: st.DataObject) -> None:
    source = tiny_files / data.draw(st.sampled_from(["llama.gguf", "lora.gguf"]))
    content, end = bytearray(source.read_bytes()), read_header(source).data_start
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, end - 1) | st.integers(0, 200))] = data.draw(st.integers(0, 255))
    path = written(source.parent, bytes(content))
    began = time.process_time()
    for read in (read_header, Sizes.read):
        try:
            read(path)
        except ModelError:
            continue
    assert time.process_time() - began < SECONDS


@given(st.binary(max_size=200))
def test_any_bytes_are_a_result_or_a_model_error(tiny_files: Path, content: bytes) -> None:
    path = written(tiny_files, header()[:8] + content)
    try:
        Sizes.read(path)
    except ModelError:
        return


@pytest.mark.parametrize(
    "module", ["store.header", "store.places", "solving.adapters", "solving.budget", "solving.default", "solving.sizes"]
)
def test_what_reads_headers_needs_no_llama_cpp(module: str) -> None:
    code = f"import sys, sgft_edge.{module}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert {"llama_cpp", "numpy", "gguf"}.isdisjoint(printed.split())
