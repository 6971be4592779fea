"""Importance matrices against what the layers' inputs are, and their files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import hf
import numpy as np
import pytest
import tiny
import torch
from transformers import PreTrainedModel

from convert.errors import ConversionError
from convert.imatrix import ImportanceMatrix, collect, read_imatrix, write_imatrix

VOCABULARY = 96
SAMPLES = [np.random.default_rng(seed).integers(3, VOCABULARY, size).tolist() for seed, size in enumerate((5, 40, 1))]
TOKENS = sum(map(len, SAMPLES))
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    changes = {"num_hidden_layers": 2} if request.param == "gemma3" else {}
    return hf.tiny_hf(tmp_path_factory.mktemp("model"), request.param, VOCABULARY, **changes)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return hf.tiny_hf(tmp_path_factory.mktemp("model"), "llama", VOCABULARY)


@pytest.fixture(scope="module")
def matrix(plain: PreTrainedModel) -> ImportanceMatrix:
    return collect(plain, SAMPLES, "samples.jsonl")


def states(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """The hidden states before each block, of shape (tokens, columns), for each sample."""
    for sample in SAMPLES:
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([sample]), output_hidden_states=True, use_cache=False)
        yield [state[0] for state in out.hidden_states]


def test_every_matrix_of_the_blocks_and_no_other(model: PreTrainedModel) -> None:
    found = collect(model, SAMPLES, "samples.jsonl")
    assert found.sums.keys() == found.tokens.keys()
    assert set(found.sums) == {f"blk.{block}.{name}.weight" for block in range(2) for name in MATRICES}
    assert set(found.tokens.values()) == {TOKENS}
    assert (found.datasets, found.chunks, found.chunk_tokens) == (("samples.jsonl",), 3, 40)
    for name, sums in found.sums.items():
        assert sums.dtype == np.float32
        assert sums.shape == (tiny.FEED_FORWARD if "ffn_down" in name else tiny.HIDDEN,)


def test_queries_see_the_normed_hidden_states(model: PreTrainedModel) -> None:
    """Computed from what transformers returns, without a hook."""
    found = collect(model, SAMPLES, "samples.jsonl")
    for block, layer in enumerate(model.model.layers):
        with torch.inference_mode():
            expected = sum(layer.input_layernorm(hidden[block]).double().square().sum(0) for hidden in states(model))
        for name in ("attn_q", "attn_k", "attn_v"):
            np.testing.assert_allclose(found.sums[f"blk.{block}.{name}.weight"], expected.numpy(), rtol=1e-5)


def test_every_matrix_by_a_run_of_its_layer_alone(plain: PreTrainedModel, matrix: ImportanceMatrix) -> None:
    """What goes into each linear layer, by the arithmetic of the block."""
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, inputs: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0) + inputs.double().square().sum(0)

    for hidden in states(plain):
        for block, layer in enumerate(plain.model.layers):
            with torch.inference_mode():
                normed = layer.input_layernorm(hidden[block])
                position = torch.arange(len(normed))[None]
                rotation = plain.model.rotary_emb(normed[None], position)
                mask = torch.full((len(normed), len(normed)), -torch.inf).triu(1)[None, None]
                attended = layer.self_attn(normed[None], position_embeddings=rotation, attention_mask=mask)[0][0]
                middle = hidden[block] + attended
                fed = layer.post_attention_layernorm(middle)
                gated = torch.nn.functional.silu(layer.mlp.gate_proj(fed)) * layer.mlp.up_proj(fed)
                # the output projection is square, so that its input follows from its output
                heads = torch.linalg.solve(layer.self_attn.o_proj.weight.double(), attended.double().T).T
            for name, inputs in (("ffn_gate", fed), ("ffn_up", fed), ("ffn_down", gated), ("attn_output", heads)):
                add(f"blk.{block}.{name}.weight", inputs)
    assert len(sums) == 8
    for name, expected in sums.items():
        np.testing.assert_allclose(matrix.sums[name], expected.numpy(), rtol=2e-3, err_msg=name)


def test_means(matrix: ImportanceMatrix) -> None:
    means = matrix.means()
    assert means.keys() == matrix.sums.keys()
    for name, mean in means.items():
        np.testing.assert_allclose(mean, matrix.sums[name] / TOKENS, rtol=1e-6)


def test_a_matrix_that_nothing_reached_counts_evenly() -> None:
    sums = {"a": np.array([2.0, 4.0], np.float32), "b": np.zeros(3, np.float32)}
    means = ImportanceMatrix(sums, {"a": 2, "b": 0}).means()
    assert means["a"].tolist() == [1.0, 2.0]
    assert means["b"].tolist() == [1.0, 1.0, 1.0]
    assert means["b"].dtype == np.float32


def test_the_model_is_as_it_was(plain: PreTrainedModel) -> None:
    calls = []
    collect(plain, SAMPLES, "samples.jsonl", lambda: calls.append(1))
    assert len(calls) == len(SAMPLES)
    assert not any(module._forward_pre_hooks for module in plain.modules())


def test_half_precision_does_not_overflow(tmp_path: Path) -> None:
    """Squares of bfloat16 inputs are summed in double precision."""
    model = hf.tiny_hf(tmp_path, "llama", VOCABULARY, dtype=torch.bfloat16, num_hidden_layers=1)
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight.fill_(1e4)
    found = collect(model, SAMPLES, "samples.jsonl")
    mean = found.sums["blk.0.attn_q.weight"].sum() / TOKENS / tiny.HIDDEN
    assert mean == pytest.approx(1e8, rel=0.01)  # what a norm gives has a mean square of one


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_damaged_weights_are_an_error(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    model = hf.tiny_hf(tmp_path, "llama", VOCABULARY, dtype=dtype, num_hidden_layers=1)
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.weight[0, 0] = value
    with pytest.raises(ConversionError) as caught:
        collect(model, SAMPLES, "samples.jsonl")
    assert str(caught.value).startswith("the inputs of blk.0.")
    assert str(caught.value).endswith(" are no numbers (NaN or infinity): the weights are damaged")
    assert not any(module._forward_pre_hooks for module in model.modules())


# Files


def test_a_file_reads_back(matrix: ImportanceMatrix, tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    write_imatrix(path, matrix)
    found = read_imatrix(path)
    assert found.sums.keys() == matrix.sums.keys()
    assert all(np.array_equal(found.sums[name], sums) for name, sums in matrix.sums.items())
    assert found.tokens == matrix.tokens
    assert (found.datasets, found.chunks, found.chunk_tokens) == (("samples.jsonl",), 3, 40)


def test_a_file_is_of_llama_cpps_form(matrix: ImportanceMatrix, tmp_path: Path) -> None:
    """https://github.com/ggml-org/llama.cpp/blob/master/tools/imatrix/imatrix.cpp, `save_imatrix`."""
    path = tmp_path / "imatrix.gguf"
    write_imatrix(path, matrix)
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert fields == {
        "general.type": "imatrix",
        "imatrix.datasets": ["samples.jsonl"],
        "imatrix.chunk_count": 3,
        "imatrix.chunk_size": 40,
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == {f"{name}.{part}" for name in matrix.sums for part in ("in_sum2", "counts")}
    for name in matrix.sums:
        sums, counts = tensors[f"{name}.in_sum2"], tensors[f"{name}.counts"]
        assert sums.tensor_type == counts.tensor_type == gguf.GGMLQuantizationType.F32
        assert sums.shape.tolist() == [len(matrix.sums[name]), 1]
        assert counts.shape.tolist() == [1, 1]


Arrays = dict[str, np.ndarray]


def file_with(path: Path, arrays: Arrays, kind: str = "imatrix", datasets: bool = True) -> Path:
    """An importance matrix by another hand."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(kind)
    if datasets:
        writer.add_array("imatrix.datasets", ["other.txt"])
        writer.add_uint32("imatrix.chunk_count", 1)
        writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in arrays.items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


GOOD: Arrays = {"blk.0.attn_q.weight.in_sum2": np.ones((1, 4)), "blk.0.attn_q.weight.counts": np.full((1, 1), 2.0)}


def refusal(path: Path) -> str:
    with pytest.raises(ConversionError) as caught:
        read_imatrix(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_by_another_hand(tmp_path: Path) -> None:
    found = read_imatrix(file_with(tmp_path / "imatrix.gguf", GOOD))
    assert found.means()["blk.0.attn_q.weight"].tolist() == [0.5] * 4
    assert found.datasets == ("other.txt",)


def test_a_model_is_no_importance_matrix(tiny_files: Path) -> None:
    assert "expected " in refusal(tiny_files / "llama.gguf")
    message = refusal(tiny_files / "lora.gguf")
    assert message.endswith("expected a GGUF file of type 'imatrix', found 'adapter'")


@pytest.mark.parametrize("damage", [tiny.truncated, tiny.corrupted, None])
def test_damaged_files(tmp_path: Path, damage: Callable[[Path, Path], Path] | None) -> None:
    path = tmp_path / "damaged.gguf"
    if damage is None:
        tiny.not_gguf(path)
    else:
        damage(file_with(tmp_path / "imatrix.gguf", GOOD | {f"{name}2": value for name, value in GOOD.items()}), path)
    assert "expected an importance matrix in GGUF form" in refusal(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refusal(tmp_path / "absent.gguf")


BAD: dict[str, tuple[Arrays, str]] = {
    "no count": ({"blk.0.attn_q.weight.in_sum2": np.ones((1, 4))}, "blk.0.attn_q.weight has sums and no count"),
    "experts": (
        {"blk.0.ffn_up_exps.weight.in_sum2": np.ones((2, 4)), "blk.0.ffn_up_exps.weight.counts": np.ones((2, 1))},
        "blk.0.ffn_up_exps.weight belongs to a mixture of experts, which is not supported",
    ),
    "nothing": ({"other": np.ones(4)}, ""),
    "NaN": ({**GOOD, "blk.0.attn_q.weight.in_sum2": np.array([[1.0, np.nan]])}, "blk.0.attn_q.weight"),
    "infinity": ({**GOOD, "blk.0.attn_q.weight.in_sum2": np.array([[1.0, np.inf]])}, "blk.0.attn_q.weight"),
    "less than nothing": ({**GOOD, "blk.0.attn_q.weight.in_sum2": np.array([[1.0, -1.0]])}, "blk.0.attn_q.weight"),
    "no number": ({**GOOD, "blk.0.attn_q.weight.counts": np.full((1, 1), np.nan)}, "blk.0.attn_q.weight"),
    "endless": ({**GOOD, "blk.0.attn_q.weight.counts": np.full((1, 1), np.inf)}, "blk.0.attn_q.weight"),
    "negative count": ({**GOOD, "blk.0.attn_q.weight.counts": np.full((1, 1), -2.0)}, "blk.0.attn_q.weight"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_contents(tmp_path: Path, name: str) -> None:
    """Sums below zero end llama.cpp's process for some types."""
    arrays, reason = BAD[name]
    assert reason in refusal(file_with(tmp_path / "imatrix.gguf", arrays))


def test_missing_metadata(tmp_path: Path) -> None:
    assert "imatrix.datasets" in refusal(file_with(tmp_path / "imatrix.gguf", GOOD, datasets=False))
