"""PEFT's adapters: read, put on a base, merged, and written for llama.cpp; each kind works or is refused by name."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf
import numpy as np
import pytest
import tiny
import torch
from gguf import GGUFReader
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

from convert import vocabulary
from convert.adapter import CONFIG, WEIGHTS, attach, read_adapter
from convert.base import Base
from convert.checkpoint import checkpoint_of
from convert.errors import BaseMismatch, ConversionError, Unsupported
from convert.logits import file_logits, torch_logits
from convert.lora_gguf import write_lora
from convert.merge import merge
from convert.model_gguf import write_model
from convert.record import RECORD, TrainingRecord
from convert.samples import Sample

TOKENIZER = tiny.byte_tokenizer(16)
VOCABULARY = len(TOKENIZER["tokenizer.ggml.tokens"].value)
TOKENS: list[int] = np.random.default_rng(0).integers(3, VOCABULARY, 24).tolist()
NEVER = (
    "layer_replication",
    "target_parameters",
    "megatron_config",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "fan_in_fan_out",
)
"""What of PEFT's LoRA can neither be merged reliably nor kept."""


def base_folder(folder: Path, arch: str, **changes: Any) -> Path:
    hf.tiny_hf(folder, arch, VOCABULARY, num_hidden_layers=1, **changes)
    return folder


def adapter_folder(folder: Path, base: Path, **changes: Any) -> Path:
    """A random LoRA as PEFT saves it; `hf.tiny_lora` leaves the zeros with which an embedding's first matrix begins."""
    hf.tiny_lora(folder, loaded(base), base="some/base", **changes)
    if "embed_tokens" in changes.get("target_modules", ()):
        change_weights(folder, lambda weights: disturb(weights, "lora_embedding_A"))
    return folder


def loaded(folder: Path) -> PreTrainedModel:
    return Base(str(folder), folder).load()


@pytest.fixture(scope="module")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_folder(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture(scope="module")
def qwen2_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_folder(tmp_path_factory.mktemp("base"), "qwen2")


@pytest.fixture(scope="module")
def tied_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_folder(tmp_path_factory.mktemp("base"), "llama", tie_word_embeddings=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, llama_base: Path) -> Path:
    return adapter_folder(tmp_path_factory.mktemp("adapter"), llama_base)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of an adapter of `llama_base`, to change."""
    return Path(shutil.copytree(trained, tmp_path / "adapter"))


def configure(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def change_weights(folder: Path, how: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    how(weights)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / WEIGHTS)


def disturb(weights: dict[str, torch.Tensor], part: str) -> None:
    names = [name for name in weights if part in name]
    assert names
    for name in names:
        weights[name] = weights[name] + torch.randn_like(weights[name]) * 0.3


def refusal(kind: type[ConversionError], call: Callable[..., object], *args: Any) -> str:
    """The one line with which something is refused."""
    with pytest.raises(kind) as caught:
        call(*args)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def nearly(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(found - expected).max() < 1e-4 * np.abs(expected).max())


# Reading


def test_an_adapters_folder(folder: Path) -> None:
    adapter = read_adapter(folder)
    assert adapter.path == folder
    assert adapter.base == "some/base"
    assert adapter.shapes == {name: tuple(value.shape) for name, value in load_file(folder / WEIGHTS).items()}
    assert len(adapter.shapes) == 14
    assert adapter.invocation == []
    assert adapter.record is None
    adapter.check_mergeable()
    adapter.check_separable()


def test_an_adapter_that_does_not_name_its_base(folder: Path) -> None:
    configure(folder, base_model_name_or_path=None)
    assert read_adapter(folder).base is None


@pytest.mark.parametrize("kind", ["IA3", "PROMPT_TUNING", "ADALORA", None])
def test_other_kinds_of_adapters_are_refused(folder: Path, kind: str | None) -> None:
    configure(folder, peft_type=kind)
    assert refusal(Unsupported, read_adapter, folder) == f"{folder}: expected peft_type LORA, found {kind!r}"


@pytest.mark.parametrize("key", NEVER)
def test_what_can_neither_be_merged_nor_kept_is_refused(folder: Path, key: str) -> None:
    for harmless in (None, False):
        configure(folder, **{key: harmless})
        read_adapter(folder)
    configure(folder, **{key: {"a": 1}})
    expected = f"{folder}: {key} is not supported: merge it with PEFT and export the model's folder"
    assert refusal(Unsupported, read_adapter, folder) == expected


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff", b"[]", b'"LORA"'])
def test_a_damaged_configuration(folder: Path, content: bytes | None) -> None:
    (folder / CONFIG).unlink()
    if content is not None:
        (folder / CONFIG).write_bytes(content)
    assert f"{folder / CONFIG}: expected PEFT's configuration" in refusal(ConversionError, read_adapter, folder)


def test_a_pickled_adapter_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"weight": torch.ones(2)}, folder / "adapter_model.bin")
    assert refusal(Unsupported, read_adapter, folder) == (
        f"{folder}: expected adapter_model.safetensors, found adapter_model.bin, a pickle, which can run code when it "
        "is read: save the adapter with save_pretrained(safe_serialization=True)"
    )


def test_an_adapter_without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    expected = f"{folder}: expected adapter_model.safetensors, found no weights"
    assert refusal(ConversionError, read_adapter, folder) == expected


@pytest.mark.parametrize("kept", [0, 4, 500, -1])
def test_truncated_weights(folder: Path, kept: int) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:kept])
    assert f"{folder / WEIGHTS}: expected a safetensors file: " in refusal(ConversionError, read_adapter, folder)


def test_the_record_of_a_training_is_read(folder: Path) -> None:
    table = hf.training_record(name="ünï")
    (folder / RECORD).write_text(json.dumps(table | {"later": 1}, ensure_ascii=False), encoding="utf-8")
    record = read_adapter(folder).record
    assert record is not None
    assert (dataclasses.asdict(record), record.role) == (table, "guide")
    record.write(folder)
    assert json.loads((folder / RECORD).read_text(encoding="utf-8")) == table
    assert TrainingRecord.read(folder) == record


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"base": None}, "expected an object as base, found None"),
        ({"base": {"name": "llama"}}, "expected a text as base.architecture, found none"),
        ({"settings": {}}, "expected a text as settings.role, found none"),
        ({"processes": "one"}, "expected a whole number as processes, found 'one'"),
    ],
)
def test_a_record_of_another_form(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    (folder / RECORD).write_text(json.dumps(hf.training_record() | changes), encoding="utf-8")
    expected = f"{folder / RECORD}: {complaint}: delete the file to go on without it"
    assert refusal(ConversionError, read_adapter, folder) == expected


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"{}"])
def test_a_damaged_record(folder: Path, content: bytes) -> None:
    (folder / RECORD).write_bytes(content)
    assert f"{folder / RECORD}: expected " in refusal(ConversionError, read_adapter, folder)


# Another base


def test_a_base_with_other_shapes(tmp_path: Path, trained: Path) -> None:
    other = loaded(base_folder(tmp_path, "llama", hidden_size=128))
    assert refusal(BaseMismatch, attach, other, read_adapter(trained)) == (
        f"{trained}: expected 128 outputs of model.layers.0.mlp.down_proj as in the base, found 256"
        ": it was trained on some/base; name the right base with --base"
    )


def test_a_base_with_fewer_key_heads(tmp_path: Path, trained: Path) -> None:
    other = loaded(base_folder(tmp_path, "llama", num_key_value_heads=1))
    assert "expected 64 outputs of model.layers.0.self_attn.k_proj as in the base, found 128" in (
        refusal(BaseMismatch, attach, other, read_adapter(trained))
    )


def test_a_base_with_another_vocabulary(tmp_path: Path, llama_base: Path) -> None:
    folder = adapter_folder(tmp_path / "adapter", llama_base, target_modules=["embed_tokens"])
    hf.tiny_hf(tmp_path / "other", "llama", VOCABULARY - 8, num_hidden_layers=1)
    assert f"expected {VOCABULARY - 8} inputs of model.embed_tokens as in the base, found {VOCABULARY}" in (
        refusal(BaseMismatch, attach, loaded(tmp_path / "other"), read_adapter(folder))
    )


def test_a_base_with_fewer_layers(tmp_path: Path, llama_base: Path) -> None:
    hf.tiny_hf(tmp_path / "deep", "llama", VOCABULARY)
    folder = adapter_folder(tmp_path / "adapter", tmp_path / "deep")
    message = refusal(BaseMismatch, attach, loaded(llama_base), read_adapter(folder))
    assert message.startswith(f"{folder}: made for a base with model.layers.1.")
    assert message.endswith(
        "which LlamaForCausalLM has not: it was trained on some/base; name the right base with --base"
    )


def test_a_base_with_other_module_names(folder: Path, llama_base: Path) -> None:
    configure(folder, target_modules=["wq"], base_model_name_or_path=None)
    change_weights(folder, lambda weights: rename(weights, "self_attn.q_proj", "attention.wq"))
    assert refusal(BaseMismatch, attach, loaded(llama_base), read_adapter(folder)) == (
        f"{folder}: made for a base with model.layers.0.attention.wq, which LlamaForCausalLM has not"
    )


def rename(weights: dict[str, torch.Tensor], old: str, new: str) -> None:
    for name in list(weights):
        if old in name:
            weights[name.replace(old, new)] = weights.pop(name)


def test_tensors_that_find_no_place_are_an_error(folder: Path, llama_base: Path) -> None:
    """PEFT leaves them out without a word."""
    configure(folder, target_modules=["q_proj", "v_proj"])
    message = refusal(BaseMismatch, attach, loaded(llama_base), read_adapter(folder))
    assert message.startswith(f"{folder}: 10 tensors found no place in LlamaForCausalLM: base_model.model.model.layers")


def test_weights_of_another_rank(folder: Path, llama_base: Path) -> None:
    configure(folder, r=8)
    message = refusal(BaseMismatch, attach, loaded(llama_base), read_adapter(folder))
    assert message.startswith(f"{folder}: PEFT cannot put it on LlamaForCausalLM: ")
    assert "size mismatch" in message


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_a_change_of_a_shared_matrix_is_refused(tmp_path: Path, tied_base: Path, module: str) -> None:
    folder = adapter_folder(tmp_path, tied_base, target_modules=["q_proj", module])
    assert refusal(Unsupported, attach, loaded(tied_base), read_adapter(folder)) == (
        f"{folder}: it adapts {module}, which shares its matrix with another module in this base: "
        "train without it, or untie the base's embeddings first"
    )


# What only a merged model can be


MERGED_ONLY: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "DoRA": ("llama", {"use_dora": True}, "magnitude", "DoRA"),
    "modules_to_save": ("llama", {"modules_to_save": ["lm_head"]}, "lm_head.weight", "modules_to_save"),
    "modules_to_save, tied": ("tied", {"modules_to_save": ["lm_head"]}, "lm_head.weight", "modules_to_save"),
    "tokens": ("llama", {"trainable_token_indices": TOKENS}, "tokens_delta", "trainable_token_indices"),
    "tokens, tied": ("tied", {"trainable_token_indices": TOKENS}, "tokens_delta", "trainable_token_indices"),
    "lora_bias": ("qwen2", {"lora_bias": True, "target_modules": ["q_proj"]}, "lora_B.bias", "lora_bias"),
    "biases": ("qwen2", {"bias": "all"}, "base_layer.bias", "trained biases"),
    "LoRA's biases": ("qwen2", {"bias": "lora_only"}, "base_layer.bias", "trained biases"),
    "PiSSA": ("llama", {"init_lora_weights": "pissa"}, "lora_B", "init_lora_weights='pissa'"),
    "OLoRA": ("llama", {"init_lora_weights": "olora"}, "lora_B", "init_lora_weights='olora'"),
}
"""The base, the settings, the tensors that hold what is special, and the word for it."""


@pytest.mark.parametrize("name", MERGED_ONLY)
def test_what_only_a_merged_model_can_be(
    tmp_path: Path, llama_base: Path, qwen2_base: Path, tied_base: Path, name: str
) -> None:
    """The merged model, and the GGUF file made of it, compute what PEFT computes; a file of its own is refused."""
    which, changes, part, word = MERGED_ONLY[name]
    base = {"llama": llama_base, "qwen2": qwen2_base, "tied": tied_base}[which]
    folder = adapter_folder(tmp_path / "adapter", base, **changes)
    before = torch_logits(attach(loaded(base), read_adapter(folder)), TOKENS)
    change_weights(folder, lambda weights: disturb(weights, part))
    adapter = read_adapter(folder)
    model = attach(loaded(base), adapter)
    for refused in (adapter.check_separable, lambda: write_lora(tmp_path / "lora.gguf", model, adapter, {}, "F32")):
        message = refusal(Unsupported, refused)
        assert message.startswith(f"{folder}: {word} ")
        assert message.endswith(": use --format merged")
    assert not (tmp_path / "lora.gguf").exists()
    adapter.check_mergeable()
    expected = torch_logits(model, TOKENS)
    assert not nearly(expected, before)  # what is special about it is at work
    merged = merge(model)
    assert nearly(torch_logits(merged, TOKENS), expected)
    path = model_gguf(tmp_path / "merged", merged)
    assert nearly(file_logits(path, None, [Sample(TOKENS, 1)])[0], expected)


def model_gguf(folder: Path, model: PreTrainedModel) -> Path:
    """A model as an F32 file, with the tokenizer of `tiny`."""
    hf.bpe_files(folder, TOKENIZER)
    checkpoint = checkpoint_of(model)
    path = folder / "model.gguf"
    write_model(path, checkpoint, vocabulary.from_folder(folder, checkpoint.config), {}, "F32")
    return path


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal"])
def test_other_beginnings_are_harmless(tmp_path: Path, llama_base: Path, init: bool | str) -> None:
    folder = adapter_folder(tmp_path, llama_base, init_lora_weights=init)
    read_adapter(folder).check_separable()


def test_saved_embeddings_do_not_get_lost(tmp_path: Path, llama_base: Path) -> None:
    """PEFT saves the whole matrix beside a LoRA of it; where it is not the base's, only a merged model has it."""
    folder = adapter_folder(tmp_path / "adapter", llama_base, target_modules=["embed_tokens", "q_proj"])
    base, adapter = loaded(llama_base), read_adapter(folder)
    write_lora(tmp_path / "lora.gguf", attach(base, adapter), adapter, {}, "F32")
    change_weights(folder, lambda weights: disturb(weights, "embed_tokens.base_layer"))
    adapter = read_adapter(folder)
    model = attach(loaded(llama_base), adapter)
    assert "--format merged" in refusal(Unsupported, write_lora, tmp_path / "2.gguf", model, adapter, {}, "F32")


# Activated LoRA


def test_an_activated_lora_cannot_be_merged(tmp_path: Path, llama_base: Path) -> None:
    folder = adapter_folder(tmp_path / "adapter", llama_base, alora_invocation_tokens=[5, 6, 7])
    adapter = read_adapter(folder)
    assert adapter.invocation == [5, 6, 7]
    assert refusal(Unsupported, adapter.check_mergeable) == (
        f"{folder}: an activated LoRA leaves the tokens before its invocation to the base, so it cannot be merged: "
        "use --format adapter"
    )
    adapter.check_separable()
    write_lora(tmp_path / "lora.gguf", attach(loaded(llama_base), adapter), adapter, {}, "F32")
    fields = GGUFReader(tmp_path / "lora.gguf").fields
    assert fields["adapter.alora.invocation_tokens"].contents() == [5, 6, 7]


# Merging


def test_merging_leaves_a_plain_model(trained: Path, llama_base: Path) -> None:
    model = attach(loaded(llama_base), read_adapter(trained))
    expected = torch_logits(model, TOKENS)
    merged = merge(model)
    assert not isinstance(merged, PeftModel)
    assert {tensor.name: tensor.shape for tensor in checkpoint_of(merged).tensors} == (
        {tensor.name: tensor.shape for tensor in checkpoint_of(loaded(llama_base)).tensors}
    )
    assert nearly(torch_logits(merged, TOKENS), expected)
    assert not nearly(torch_logits(loaded(llama_base), TOKENS), expected)


def test_merging_what_was_never_trained_is_an_error(folder: Path, llama_base: Path) -> None:
    change_weights(folder, lambda weights: scale(weights, "lora_B", 0))
    model = attach(loaded(llama_base), read_adapter(folder))
    expected = "merging changes no weight of the base: the adapter is empty or was never trained"
    assert refusal(ConversionError, merge, model) == expected


def test_merging_in_a_type_that_is_too_coarse_is_an_error(folder: Path, llama_base: Path) -> None:
    change_weights(folder, lambda weights: scale(weights, "lora_B", 1e-10))
    merge(attach(loaded(llama_base), read_adapter(folder)))
    coarse = Base("base", llama_base).load(torch.bfloat16)
    assert "merging changes no weight" in refusal(ConversionError, merge, attach(coarse, read_adapter(folder)))


def scale(weights: dict[str, torch.Tensor], part: str, factor: float) -> None:
    for name in weights:
        if part in name:
            weights[name] = weights[name] * factor


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["q_proj.lora_A", "down_proj.lora_B", "embed_tokens.lora_embedding_B"])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, llama_base: Path, part: str, value: float) -> None:
    folder = adapter_folder(tmp_path / "adapter", llama_base, target_modules=["embed_tokens", "q_proj", "down_proj"])
    change_weights(folder, lambda weights: spoil(weights, part, value))
    adapter = read_adapter(folder)
    model = attach(loaded(llama_base), adapter)
    message = refusal(ConversionError, write_lora, tmp_path / "lora.gguf", model, adapter, {}, "F16")
    assert "holds values that are no numbers (NaN or infinity)" in message
    assert message.startswith("the tensor ")
    assert "the adapter cannot be merged: " in refusal(ConversionError, merge, model)


def spoil(weights: dict[str, torch.Tensor], part: str, value: float) -> None:
    (name,) = (name for name in weights if part in name)
    weights[name].view(-1)[3] = value


# As a file of its own


SCALED: dict[str, dict[str, Any]] = {
    "plain": {},
    "another alpha": {"lora_alpha": 3},
    "rsLoRA": {"use_rslora": True},
    "alphas": {"alpha_pattern": {"q_proj": 32, "down_proj": 1}},
    "ranks": {"rank_pattern": {"k_proj": 2, "gate_proj": 16}},
    "all of it": {"use_rslora": True, "alpha_pattern": {"q_proj": 32}, "rank_pattern": {"k_proj": 2, "q_proj": 16}},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head", "q_proj"], "alpha_pattern": {"lm_head": 1}},
}
GGUF_NAMES = {
    "q_proj": "blk.0.attn_q",
    "k_proj": "blk.0.attn_k",
    "v_proj": "blk.0.attn_v",
    "o_proj": "blk.0.attn_output",
    "gate_proj": "blk.0.ffn_gate",
    "up_proj": "blk.0.ffn_up",
    "down_proj": "blk.0.ffn_down",
    "embed_tokens": "token_embd",
    "lm_head": "output",
}


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("name", SCALED)
def test_scales_are_folded_in(tmp_path: Path, llama_base: Path, qwen2_base: Path, arch: str, name: str) -> None:
    """alpha / rank * B A of the file, with its rows put back, is what PEFT adds to each matrix."""
    base = llama_base if arch == "llama" else qwen2_base
    adapter = read_adapter(adapter_folder(tmp_path / "adapter", base, **SCALED[name]))
    model = attach(loaded(base), adapter)
    path = tmp_path / "lora.gguf"
    write_lora(path, model, adapter, {}, "F32")
    found = file_deltas(path, {"q_proj": 4, "k_proj": 2} if arch == "llama" else {})
    expected = {
        module_name.rpartition(".")[2]: module.get_delta_weight("default").detach().numpy()
        for module_name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert found.keys() == expected.keys()
    for key, delta in expected.items():
        assert np.abs(delta).max() > 1e-3
        np.testing.assert_allclose(found[key], delta, rtol=1e-4, atol=1e-5 * np.abs(delta).max(), err_msg=key)


def file_deltas(path: Path, paired_heads: dict[str, int]) -> dict[str, np.ndarray]:
    """What llama.cpp adds to each matrix, by transformers' names: scaled by the file's alpha and each one's rank.

    Its embedding is read row by row, so of that `lora_a` is (tokens, rank).
    """
    reader = GGUFReader(path)
    alpha = reader.fields["adapter.lora.alpha"].contents()
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    deltas = {}
    for key, name in GGUF_NAMES.items():
        if f"{name}.weight.lora_a" not in tensors:
            continue
        a, b = tensors.pop(f"{name}.weight.lora_a"), tensors.pop(f"{name}.weight.lora_b")
        delta = alpha / b.shape[1] * (a @ b.T if key == "embed_tokens" else b @ a)
        if key in paired_heads:
            delta = LlamaTensorProcessor()._reverse_permute_weights(delta, paired_heads[key])
        deltas[key] = delta
    assert not tensors
    return deltas


@pytest.mark.parametrize(
    ("arch", "name"), [("llama", "all of it"), ("llama", "embedding and head"), ("qwen2", "plain")]
)
def test_llama_cpp_computes_what_peft_computes(
    tmp_path: Path, llama_base: Path, qwen2_base: Path, arch: str, name: str
) -> None:
    base = llama_base if arch == "llama" else qwen2_base
    path = model_gguf(tmp_path / "base", loaded(base))
    adapter = read_adapter(adapter_folder(tmp_path / "adapter", base, **SCALED[name]))
    model = attach(loaded(base), adapter)
    write_lora(tmp_path / "lora.gguf", model, adapter, {}, "F32")
    found = file_logits(path, tmp_path / "lora.gguf", [Sample(TOKENS, 1)])[0]
    expected = torch_logits(model, TOKENS)
    assert nearly(found, expected)
    assert not nearly(file_logits(path, None, [Sample(TOKENS, 1)])[0], expected)


@pytest.mark.parametrize(("type_name", "kinds"), [("F32", {"F32"}), ("F16", {"F16"}), ("Q8_0", {"F16", "Q8_0"})])
def test_types(tmp_path: Path, trained: Path, llama_base: Path, type_name: str, kinds: set[str]) -> None:
    """`lora_b` has rows of the rank's width, too narrow for a block of Q8_0."""
    adapter = read_adapter(trained)
    write_lora(tmp_path / "lora.gguf", attach(loaded(llama_base), adapter), adapter, {}, type_name)
    assert {tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "lora.gguf").tensors} == kinds


@pytest.mark.parametrize("empty", ["lora_A", "lora_B", "alpha"])
def test_an_adapter_that_changes_nothing_is_refused(folder: Path, llama_base: Path, tmp_path: Path, empty: str) -> None:
    if empty == "alpha":
        configure(folder, lora_alpha=0)
    else:
        change_weights(folder, lambda weights: scale(weights, empty, 0))
    adapter = read_adapter(folder)
    message = refusal(
        ConversionError, write_lora, tmp_path / "lora.gguf", attach(loaded(llama_base), adapter), adapter, {}, "F32"
    )
    assert message == "the adapter changes nothing: its matrices or its alpha are zero; was it trained?"
    assert not (tmp_path / "lora.gguf").exists()


def test_what_a_configuration_leaves_out_is_peft_s_default(folder: Path, llama_base: Path, tmp_path: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    kept = {key: config[key] for key in ("peft_type", "task_type", "target_modules", "base_model_name_or_path")}
    (folder / CONFIG).write_text(json.dumps({**kept, "r": 4}))
    adapter = read_adapter(folder)
    adapter.check_separable()
    write_lora(tmp_path / "lora.gguf", attach(loaded(llama_base), adapter), adapter, {}, "F32")
    assert GGUFReader(tmp_path / "lora.gguf").fields["adapter.lora.alpha"].contents() == 8.0
