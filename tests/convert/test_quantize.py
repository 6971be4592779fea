"""Quantization of tiny models by llama.cpp: every type, overrides, importance matrices, and what goes wrong."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from convert.errors import ConversionError
from convert.imatrix import ImportanceMatrix
from convert.quantize import (
    FILE_TYPES,
    TENSOR_TYPES,
    bits_at_most,
    check_type,
    contents,
    describe_types,
    parse_override,
    quantize,
)
from sgft_edge.errors import InputError
from sgft_edge.llama.model import Model

NEED_MATRIX = {"Q2_K_S", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS"}
NOT_WRITABLE = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")
"""ggml's types for intermediate results and indices: llama.cpp ends the process when it is to write a matrix in one."""

WRITER = """
import json, sys
from pathlib import Path
from test_quantize import attempt, matrix_for

source, folder, with_matrix, jobs = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "True", sys.argv[4]
matrix = matrix_for(source) if with_matrix else None
for name, overrides in json.loads(jobs):
    print(json.dumps([name, overrides, attempt(source, folder, name, overrides, matrix)]), flush=True)
"""


def matrix_for(path: Path, seed: int = 0) -> ImportanceMatrix:
    """An importance matrix for every matrix of the blocks, with some inputs that never had a value."""
    rng = np.random.default_rng(seed)
    sums = {
        tensor.name: rng.exponential(10, int(tensor.shape[0])).astype(np.float32) * rng.integers(0, 2, tensor.shape[0])
        for tensor in GGUFReader(path).tensors
        if tensor.name.startswith("blk.") and len(tensor.shape) == 2
    }
    return ImportanceMatrix(sums, dict.fromkeys(sums, 10))


def attempt(
    source: Path, folder: Path, name: str, overrides: dict[str, int], matrix: ImportanceMatrix | None
) -> dict[str, Any]:
    """Quantize into a new file; what came out, or the error and whether it left a file."""
    target = folder / f"{name}-{'-'.join(map(str, overrides.values()))}.gguf"
    try:
        quantize(source, target, name, matrix, overrides)
        Model(target).close()
        what = contents(target)
        return {"types": dict(what.types), "bits": what.bits_per_weight, "bytes": what.bytes}
    except ConversionError as e:
        return {"error": str(e), "left": target.exists()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one block, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "LAYERS", 1)
        patch.setattr(tiny, "FEED_FORWARD", 256)
        path = tmp_path_factory.mktemp("small") / "small.gguf"
        return tiny.tiny_model(path, vocab=tiny.byte_tokenizer(16), dtype=np.float32)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with rows of 320: no multiple of 256, the block of K-quants."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LAYERS": 1, "HIDDEN": 320, "HEADS": 5, "KV_HEADS": 5}.items():
            patch.setattr(tiny, name, value)
        path = tmp_path_factory.mktemp("wide") / "wide.gguf"
        return tiny.tiny_model(path, vocab=tiny.byte_tokenizer(16), dtype=np.float32)


class Writers:
    """Two processes that write every type, apart, since llama.cpp may end them; they run while other tests do."""

    def __init__(self, source: Path, folder: Path) -> None:
        files = [(name, {}) for name in FILE_TYPES]
        tensors = [("Q4_0", {"attn_v": TENSOR_TYPES[name]}) for name in TENSOR_TYPES if name not in NOT_WRITABLE]
        self.processes = {}
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        for with_matrix, jobs in ((False, files), (True, [*files, *tensors])):
            own = folder / str(with_matrix)
            own.mkdir()
            command = [sys.executable, "-c", WRITER, str(source), str(own), str(with_matrix), json.dumps(jobs)]
            self.processes[with_matrix] = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
            )
        self.found: dict[tuple[bool, str, str], dict[str, Any]] | None = None
        self.log = ""

    def outcome(self, with_matrix: bool, name: str, overrides: dict[str, int] | None = None) -> dict[str, Any]:
        """What came of one type, or of one override."""
        if self.found is None:
            self.found = {}
            for key, process in self.processes.items():
                out, log = process.communicate(timeout=300)
                self.log += log
                for line in out.splitlines():
                    type_name, changed, outcome = json.loads(line)
                    self.found[key, type_name, json.dumps(changed)] = outcome
        wanted = (with_matrix, name, json.dumps(overrides or {}))
        assert wanted in self.found, f"llama.cpp ended the process, here or before: {self.log[-500:]}"
        return self.found[wanted]

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()


@pytest.fixture(scope="module", autouse=True)
def writers(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Writers]:
    writers = Writers(small, tmp_path_factory.mktemp("types"))
    yield writers
    writers.close()


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def refusal(source: Path, target: Path, type_name: str, *args: Any, **options: Any) -> str:
    """The one line with which a conversion fails; it leaves nothing."""
    with pytest.raises(ConversionError) as caught:
        quantize(source, target, type_name, *args, **options)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


# Names


def test_file_types_are_llama_cpps() -> None:
    expected = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q6_K": 18, "IQ4_XS": 30, "BF16": 32}
    assert expected.items() <= FILE_TYPES.items()
    assert not any(name.startswith(("MOSTLY", "ALL", "LLAMA", "GUESSED")) for name in FILE_TYPES)
    assert len(set(FILE_TYPES.values())) == len(FILE_TYPES)


@pytest.mark.parametrize("name", FILE_TYPES)
def test_a_known_type(name: str) -> None:
    assert check_type(name) == check_type(name.lower()) == check_type(f" {name} ") == name


@pytest.mark.parametrize(
    ("name", "near"), [("Q4_K_N", "Q4_K_M"), ("q4km", "Q4_K_M"), ("Q8", "Q8_0"), ("IQ4", "IQ4_"), ("FP16", "F16")]
)
def test_an_unknown_type_gets_the_nearest_ones(name: str, near: str) -> None:
    with pytest.raises(InputError) as caught:
        check_type(name)
    message = str(caught.value)
    assert message.startswith("--quant: expected a type such as ")
    assert near in message.partition(", found")[0]
    assert message.endswith(f", found {name!r}")


@pytest.mark.parametrize("name", ["", "???", "quantized"])
def test_an_unknown_type_unlike_any(name: str) -> None:
    with pytest.raises(InputError, match=r"--quant: expected a type such as [A-Z]+[0-9]"):
        check_type(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attn_v=Q8_0", ("attn_v", GGMLQuantizationType.Q8_0)),
        (r"blk\.[01]\.ffn_.*=q6_k", (r"blk\.[01]\.ffn_.*", GGMLQuantizationType.Q6_K)),
        ("(?=attn)attn_q=bf16", ("(?=attn)attn_q", GGMLQuantizationType.BF16)),
    ],
)
def test_an_override(text: str, expected: tuple[str, int]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["", "attn_v", "=Q8_0", "attn_v=", "attn_v=Q9_0", "attn_v=Q4_K_M", "attn_v: Q8_0"])
def test_a_bad_override(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_override(text)
    assert str(caught.value).startswith("--tensor-type: expected PATTERN=TYPE, such as 'attn_v=Q8_0', found ")
    assert "\n" not in str(caught.value)


def test_a_bad_override_gets_the_nearest_types() -> None:
    with pytest.raises(InputError, match=r"found 'attn_v=Q4_KM'; types near it: .*Q4_K"):
        parse_override("attn_v=Q4_KM")


@pytest.mark.parametrize("pattern", ["attn_(v", "*attn", "attn_[v"])
def test_an_override_that_is_no_regular_expression(pattern: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_override(f"{pattern}=Q8_0")
    assert str(caught.value).startswith(f"--tensor-type: {pattern!r} is no regular expression: ")


@pytest.mark.parametrize("name", NOT_WRITABLE)
def test_types_that_no_matrix_can_have_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="--tensor-type: expected PATTERN=TYPE"):
        parse_override(f"attn_v={name}")


# What comes out


def test_contents(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.gguf"
    steps: list[int] = []
    quantize(small, path, "Q4_K_M", advance=lambda: steps.append(1))
    what, tensors = contents(path), GGUFReader(path).tensors
    assert what.bytes == path.stat().st_size
    assert what.types == Counter(tensor.tensor_type.name for tensor in tensors)
    assert what.bits_per_weight == pytest.approx(
        8 * sum(int(tensor.n_bytes) for tensor in tensors) / sum(int(tensor.n_elements) for tensor in tensors)
    )
    assert {"Q4_K", "Q6_K", "F32"} == set(what.types)
    assert 4.5 < what.bits_per_weight < 6
    assert len(steps) == len(tensors)


def test_contents_of_floats(small: Path, llama: Path) -> None:
    assert contents(small).bits_per_weight == 32
    assert contents(small).types == {"F32": 12}
    assert 16 < contents(llama).bits_per_weight < 16.1
    assert describe_types(contents(llama).types) == "16 F16, 5 F32"


def test_contents_of_a_file_without_tensors(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "empty.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ConversionError, match=r"empty\.gguf"):
        contents(tmp_path / "empty.gguf")


@pytest.mark.parametrize(
    ("type_name", "instead"), [("Q4_K_M", {"Q5_0", "Q8_0"}), ("Q6_K", {"Q8_0"}), ("IQ4_XS", {"IQ4_NL"})]
)
def test_k_quants_fall_back_on_rows_of_another_width(
    wide: Path, tmp_path: Path, type_name: str, instead: set[str]
) -> None:
    """Only the rows of `ffn_down`, of 512, can be what was asked for."""
    path = tmp_path / "out.gguf"
    quantize(wide, path, type_name)
    assert instead < set(contents(path).types)
    types = types_of(path)
    assert types["blk.0.ffn_up.weight"] in instead
    assert types["blk.0.ffn_down.weight"] not in instead
    Model(path).close()


def test_overrides_change_the_named_tensors(small: Path, tmp_path: Path) -> None:
    quantize(small, tmp_path / "plain.gguf", "Q4_0")
    overrides = dict([parse_override("attn_v=Q8_0"), parse_override(r"blk\.0\.ffn_(up|down)=bf16")])
    quantize(small, tmp_path / "changed.gguf", "Q4_0", overrides=overrides)
    plain, changed = types_of(tmp_path / "plain.gguf"), types_of(tmp_path / "changed.gguf")
    assert {name: kind for name, kind in changed.items() if kind != plain[name]} == {
        "blk.0.attn_v.weight": "Q8_0",
        "blk.0.ffn_up.weight": "BF16",
        "blk.0.ffn_down.weight": "BF16",
    }


@pytest.mark.parametrize("type_name", ["F16", "F32", "BF16"])
def test_overrides_of_floats_are_applied_or_refused(small: Path, tmp_path: Path, type_name: str) -> None:
    target = tmp_path / "out.gguf"
    try:
        quantize(small, target, type_name, overrides=dict([parse_override("attn_v=Q8_0")]))
    except InputError:
        assert not target.exists()
    else:
        assert types_of(target)["blk.0.attn_v.weight"] == "Q8_0"


@pytest.mark.parametrize("pattern", ["nonesuch", "ATTN_V", r"attn_norm"])
def test_an_override_that_changes_nothing_is_an_error(small: Path, tmp_path: Path, pattern: str) -> None:
    """A name that no tensor has, and vectors, which always stay F32."""
    message = refusal(small, tmp_path / "out.gguf", "Q4_0", overrides=dict([parse_override(f"{pattern}=Q8_0")]))
    assert pattern in message


@pytest.mark.parametrize("pattern", ["(?<=blk.0.)attn_v", "(?P<what>attn_v)", "(?i:attn_v)"])
def test_an_override_that_only_python_takes(small: Path, tmp_path: Path, pattern: str) -> None:
    overrides = dict([parse_override(f"{pattern}=Q8_0")])
    message = refusal(small, tmp_path / "out.gguf", "Q4_0", overrides=overrides)
    assert message.startswith("Q4_0: llama.cpp could not quantize small.gguf: ")
    assert "regular expression" in message


def test_an_importance_matrix_changes_the_weights(small: Path, tmp_path: Path) -> None:
    plain, one, other, again = (tmp_path / name for name in ("plain", "one", "other", "again"))
    quantize(small, plain, "Q4_K_M")
    quantize(small, one, "Q4_K_M", matrix_for(small, seed=0))
    quantize(small, other, "Q4_K_M", matrix_for(small, seed=1))
    quantize(small, again, "Q4_K_M", matrix_for(small, seed=0))
    data = [{tensor.name: tensor.data.tobytes() for tensor in GGUFReader(path).tensors} for path in (plain, one, other)]
    for name in data[0]:
        matrix = name.startswith("blk.") and not name.endswith("_norm.weight")
        assert len({values[name] for values in data}) == (3 if matrix else 1), name
    assert one.read_bytes() == again.read_bytes()


def test_an_importance_matrix_favours_what_it_weighs(small: Path, tmp_path: Path) -> None:
    """Half of the columns count a thousand times more: their error falls."""
    name, heavy = "blk.0.ffn_up.weight", np.arange(256) % 2 == 0
    matrix = ImportanceMatrix({name: np.where(heavy, 1000, 1).astype(np.float32)}, {name: 1})
    errors = []
    for given in (None, matrix):
        quantize(small, tmp_path / "out.gguf", "Q4_0", given)
        values = {tensor.name: dequantized(tensor) for tensor in GGUFReader(tmp_path / "out.gguf").tensors}[name]
        (exact,) = (tensor.data for tensor in GGUFReader(small).tensors if tensor.name == name)
        errors.append(np.square(values - exact)[:, heavy].mean())
    assert errors[1] < 0.8 * errors[0]


def dequantized(tensor: Any) -> np.ndarray:
    from gguf.quants import dequantize

    return dequantize(tensor.data, tensor.tensor_type)


def test_requantizing_must_be_allowed(small: Path, tmp_path: Path) -> None:
    quantize(small, tmp_path / "q8.gguf", "Q8_0")
    message = refusal(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0")
    assert message.startswith("Q4_0: llama.cpp could not quantize q8.gguf: requantizing from type q8_0 is disabled")
    assert message.endswith("; --allow-requantize does it all the same, at a loss")
    quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0", allow_requantize=True)
    assert contents(tmp_path / "q4.gguf").types["Q4_0"] == 8


def test_half_precision_is_no_requantizing(llama: Path, tmp_path: Path) -> None:
    quantize(llama, tmp_path / "out.gguf", "Q8_0")
    assert contents(tmp_path / "out.gguf").types == {"Q8_0": 16, "F32": 5}


# What goes wrong


@pytest.mark.parametrize("by", [-3, 256])
def test_a_matrix_of_another_width_is_refused(small: Path, tmp_path: Path, by: int) -> None:
    matrix = ImportanceMatrix({"blk.0.attn_k.weight": np.ones(256 + by, np.float32)}, {"blk.0.attn_k.weight": 1})
    message = refusal(small, tmp_path / "out.gguf", "Q4_K_M", matrix)
    assert f"imatrix size {256 + by} is different from tensor size 256 for blk.0.attn_k.weight" in message


def test_a_matrix_with_values_that_are_no_numbers_is_refused(small: Path, tmp_path: Path) -> None:
    matrix = ImportanceMatrix({"blk.0.attn_k.weight": np.full(256, np.nan, np.float32)}, {"blk.0.attn_k.weight": 1})
    assert "non-finite" in refusal(small, tmp_path / "out.gguf", "Q4_K_M", matrix)


def test_a_type_that_needs_a_matrix_says_so(small: Path, tmp_path: Path) -> None:
    message = refusal(small, tmp_path / "out.gguf", "IQ2_XS")
    assert message.startswith("IQ2_XS: llama.cpp could not quantize small.gguf: ")
    assert "imatrix" in message


@pytest.mark.parametrize("damage", ["absent", "short", "corrupted", "text", "architecture"])
def test_a_damaged_source(small: Path, tmp_path: Path, damage: str) -> None:
    source = tmp_path / "source.gguf"
    if damage == "short":
        tiny.truncated(small, source)
    elif damage == "corrupted":
        tiny.corrupted(small, source)
    elif damage == "text":
        tiny.not_gguf(source)
    elif damage == "architecture":
        tiny.wrong_architecture(source)
    message = refusal(source, tmp_path / "out.gguf", "Q8_0")
    assert message.startswith("Q8_0: llama.cpp could not quantize source.gguf: ")


def test_a_folder_that_is_not_there(small: Path, tmp_path: Path) -> None:
    assert "write" in refusal(small, tmp_path / "absent" / "out.gguf", "Q8_0")


def test_a_full_disk(small: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full, which refuses every byte")
    (tmp_path / "out.gguf").symlink_to("/dev/full")
    assert "write" in refusal(small, tmp_path / "out.gguf", "Q8_0")
    assert not (tmp_path / "out.gguf").is_symlink()


# Every type


@pytest.mark.parametrize("with_matrix", [False, True], ids=["plain", "matrix"])
@pytest.mark.parametrize("name", FILE_TYPES)
def test_every_type_gives_a_file_that_loads_or_one_line(writers: Writers, name: str, with_matrix: bool) -> None:
    outcome = writers.outcome(with_matrix, name)
    if "error" in outcome:
        assert outcome["error"].startswith(f"{name}: llama.cpp could not quantize small.gguf: ")
        assert "\n" not in outcome["error"]
        assert not outcome["left"]
    else:
        assert sum(outcome["types"].values()) == 12
        assert outcome["bits"] <= bits_at_most(name)


def test_which_types_need_a_matrix(writers: Writers) -> None:
    def refused(with_matrix: bool) -> set[str]:
        return {name for name in FILE_TYPES if "error" in writers.outcome(with_matrix, name)}

    assert refused(False) - refused(True) == NEED_MATRIX


@pytest.mark.parametrize("name", [name for name in TENSOR_TYPES if name not in NOT_WRITABLE])
def test_every_type_for_one_tensor(writers: Writers, name: str) -> None:
    outcome = writers.outcome(True, "Q4_0", {"attn_v": TENSOR_TYPES[name]})
    assert name in outcome["types"]
