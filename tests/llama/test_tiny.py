"""The files that `tiny` builds read back as they should; that llama.cpp loads them is what other tests rest on."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType, GGUFReader

SHAPES = {
    "llama": {"attn_q": (256, 256), "attn_k": (256, 128), "attn_output": (256, 256), "ffn_down": (512, 256)},
    "qwen2": {"attn_q": (256, 256), "attn_v": (256, 128), "ffn_up": (256, 512)},
    "mamba": {"ssm_in": (256, 1024), "ssm_x": (512, 48), "ssm_out": (512, 256)},
}


def metadata(path: Path) -> dict[str, object]:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_model(tmp_path_factory.mktemp("tiny") / "llama.gguf")


@pytest.mark.parametrize("arch", SHAPES)
def test_model(arch: str, tmp_path: Path) -> None:
    path = tiny.tiny_model(tmp_path / "model.gguf", arch)
    values = metadata(path)
    assert values["general.architecture"] == arch
    assert values[f"{arch}.block_count"] == tiny.LAYERS
    assert values[f"{arch}.embedding_length"] == tiny.HIDDEN
    assert values[f"{arch}.vocab_size"] == len(values["tokenizer.ggml.tokens"])
    shapes = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in GGUFReader(path).tensors}
    assert shapes["token_embd.weight"] == (tiny.HIDDEN, values[f"{arch}.vocab_size"])
    for block in range(tiny.LAYERS):
        for name, shape in SHAPES[arch].items():
            assert shapes[f"blk.{block}.{name}.weight"] == shape
    assert ("blk.0.attn_q.bias" in shapes) == (arch == "qwen2")


def test_models_depend_on_the_seed_alone(llama: Path, tmp_path: Path) -> None:
    same = tiny.tiny_model(tmp_path / "same.gguf")
    other = tiny.tiny_model(tmp_path / "other.gguf", seed=1)
    assert same.read_bytes() == llama.read_bytes()
    assert not np.array_equal(tensors(other)["output.weight"], tensors(llama)["output.weight"])


def test_matrices_are_of_the_type_asked_for(llama: Path, tmp_path: Path) -> None:
    full = tiny.tiny_model(tmp_path / "full.gguf", dtype=np.float32)
    for path, expected in ((llama, GGMLQuantizationType.F16), (full, GGMLQuantizationType.F32)):
        kinds = {tensor.name: tensor.tensor_type for tensor in GGUFReader(path).tensors}
        assert kinds["blk.0.attn_q.weight"] == expected
        assert kinds["blk.0.attn_norm.weight"] == GGMLQuantizationType.F32


def test_control_tokens_are_never_the_best(llama: Path) -> None:
    output = tensors(llama)["output.weight"]
    assert not output[: len(tiny.CHATML_TOKENS)].any()
    assert output[len(tiny.CHATML_TOKENS) :].any(axis=1).all()


def test_byte_tokenizer_has_every_byte_and_every_merge() -> None:
    tokenizer = tiny.byte_tokenizer()
    tokens = tokenizer["tokenizer.ggml.tokens"].value
    assert 500 < len(tokens) == len(set(tokens)) == len(tokenizer["tokenizer.ggml.token_type"].value)
    assert tokens[:3] == list(tiny.CHATML_TOKENS)
    assert sum(len(token) == 1 for token in tokens) == 256
    assert all(merge.replace(" ", "") in tokens for merge in tokenizer["tokenizer.ggml.merges"].value)
    assert "Ġthe" in tokens


def test_merges_join_the_most_frequent_pair_first() -> None:
    assert tiny.learn_merges("ab ab ab cb", 3) == [("a", "b"), ("Ġ", "ab"), ("c", "b")]
    assert tiny.learn_merges("a", 3) == []


def test_a_tokenizer_is_copied_verbatim(llama: Path, tmp_path: Path) -> None:
    copied = tiny.tokenizer_of(llama)
    assert copied == tiny.byte_tokenizer()
    copy = tiny.tiny_model(tmp_path / "copy.gguf", "qwen2", vocab=copied)
    assert tiny.tokenizer_of(copy) == copied


def test_adapter(llama: Path, tmp_path: Path) -> None:
    path = tiny.tiny_adapter(tmp_path / "adapter.gguf", llama, rank=4, alpha=8)
    values = metadata(path)
    assert values["general.type"] == "adapter"
    assert values["general.architecture"] == "llama"
    assert values["adapter.type"] == "lora"
    assert values["adapter.lora.alpha"] == 8.0
    assert "adapter.alora.invocation_tokens" not in values
    pairs, base = tensors(path), tensors(llama)
    assert len(pairs) == 2 * 7 * tiny.LAYERS
    for name in {name.rsplit(".", 1)[0] for name in pairs}:
        outputs, inputs = base[name].shape
        assert pairs[f"{name}.lora_a"].shape == (4, inputs)
        assert pairs[f"{name}.lora_b"].shape == (outputs, 4)


def test_activated_adapter_of_another_architecture(llama: Path, tmp_path: Path) -> None:
    path = tiny.tiny_adapter(tmp_path / "a.gguf", llama, alora_invocation_tokens=[1, 7, 2], architecture="qwen2")
    assert metadata(path)["adapter.alora.invocation_tokens"] == [1, 7, 2]
    assert metadata(path)["general.architecture"] == "qwen2"


def test_broken_files(llama: Path, tmp_path: Path) -> None:
    assert tiny.truncated(llama, tmp_path / "half.gguf").stat().st_size == llama.stat().st_size // 2
    corrupted = tiny.corrupted(llama, tmp_path / "corrupted.gguf")
    assert corrupted.stat().st_size == llama.stat().st_size
    assert corrupted.read_bytes()[:4] == b"GGUF"
    with pytest.raises((ValueError, OverflowError, MemoryError, IndexError)):
        GGUFReader(corrupted)
    with pytest.raises(ValueError, match="magic"):
        GGUFReader(tiny.not_gguf(tmp_path / "text.gguf"))
    assert metadata(tiny.wrong_architecture(tmp_path / "other.gguf"))["general.architecture"] == "nonesuch"
