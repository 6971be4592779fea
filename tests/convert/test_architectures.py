"""What llama.cpp is told of a model, against what transformers computes with it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import hf
import numpy as np
import pytest
import tiny
import torch
from transformers import (
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from convert import vocabulary
from convert.architectures import ARCHITECTURES, Layout, add_hyperparameters, architecture_of
from convert.checkpoint import checkpoint_of
from convert.errors import ConversionError, Unsupported
from convert.logits import file_logits, torch_logits
from convert.model_gguf import write_model
from convert.samples import Sample

CONFIGS: dict[str, tuple[str, type[PretrainedConfig]]] = {
    "llama": ("LlamaForCausalLM", LlamaConfig),
    "mistral": ("MistralForCausalLM", MistralConfig),
    "qwen2": ("Qwen2ForCausalLM", Qwen2Config),
    "qwen3": ("Qwen3ForCausalLM", Qwen3Config),
    "gemma3": ("Gemma3ForCausalLM", Gemma3TextConfig),
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
YARN_DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "attention_factor": 0.1 * math.log(4.0) + 1}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config_of(arch: str, **changes: Any) -> dict[str, Any]:
    """A configuration as `open_checkpoint` gives it."""
    name, kind = CONFIGS[arch]
    return {**kind(**changes).to_dict(), "architectures": [name]}


def rope(**settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10_000.0, **settings}}


def gemma_rope(**full_and_local: dict[str, Any]) -> dict[str, Any]:
    defaults = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
    settings = {kind: {"rope_type": "default", **own, **full_and_local.get(kind, {})} for kind, own in defaults.items()}
    return {"rope_parameters": settings}


def described(config: dict[str, Any]) -> dict[str, Any]:
    """All that is written about a model beside its own tensors."""
    layout = Layout(config)
    writer = gguf.GGUFWriter(None, layout.architecture.name)
    add_hyperparameters(writer, config)
    return {key: value.value for key, value in writer.kv_data[0].items()} | {
        tensor.name: tensor.load() for tensor in layout.extra()
    }


@pytest.mark.parametrize("names", [["Phi3ForCausalLM"], ["Gemma3ForConditionalGeneration"], [], None])
def test_an_unknown_architecture_is_refused_by_its_name(names: Sequence[str] | None) -> None:
    config = {**Phi3Config().to_dict(), "architectures": names}
    for refuse in (architecture_of, Layout, described):
        with pytest.raises(Unsupported) as caught:
            refuse(config)
        assert str(caught.value) == (
            f"expected one of {', '.join(ARCHITECTURES)}, found {names[0] if names else 'none'}: "
            "--converter PATH runs a llama.cpp checkout's own"
        )


@pytest.mark.parametrize("arch", CONFIGS)
def test_sizes(arch: str) -> None:
    sizes = {"num_hidden_layers": 6, "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    found = described(config_of(arch, **sizes, intermediate_size=640, max_position_embeddings=512, rms_norm_eps=1e-4))
    name = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[CONFIGS[arch][0]].id]
    expected = {
        "general.architecture": name,
        f"{name}.block_count": 6,
        f"{name}.embedding_length": 256,
        f"{name}.feed_forward_length": 640,
        f"{name}.context_length": 512,
        f"{name}.attention.head_count": 4,
        f"{name}.attention.head_count_kv": 2,
        f"{name}.attention.layer_norm_rms_epsilon": 1e-4,
    }
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "nonesuch"])
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_unknown_rope_types_are_refused(arch: str, kind: str) -> None:
    config = config_of(arch)
    config["rope_parameters"] = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 2.0}
    with pytest.raises(Unsupported, match=f"expected rope_type default, linear, yarn or llama3, found '{kind}'"):
        described(config)


def test_a_configuration_without_a_rotary_base(tmp_path: Path) -> None:
    config = config_of("llama")
    config["rope_parameters"] = {"rope_type": "default"}
    with pytest.raises(ConversionError, match="expected a rope_theta, found none"):
        described(config)


SILENT = {
    "llama3 in qwen2": ("qwen2", rope(**LLAMA3)),
    "llama3 in qwen3": ("qwen3", rope(**LLAMA3)),
    "yarn's attention_factor": ("llama", rope(**YARN, attention_factor=1.0)),
    "yarn's mscale": ("qwen2", rope(**YARN, mscale=1.0, mscale_all_dim=0.5)),
    "yarn's beta_slow": ("llama", rope(**YARN, beta_slow=2.0)),
    "yarn's beta_fast": ("qwen3", rope(**YARN, beta_fast=4.0)),
    "yarn's truncate": ("qwen2", rope(**YARN, truncate=False)),
    "another activation": ("llama", {"hidden_act": "gelu"}),
    "another activation in gemma3": ("gemma3", {"hidden_activation": "silu"}),
    "biases in qwen3": ("qwen3", {"attention_bias": True}),
    "a sliding window in qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}),
    "a sliding window in qwen3": ("qwen3", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}),
    "another scale of attention": ("gemma3", {"query_pre_attn_scalar": 128, "head_dim": 256}),
    "attention both ways": ("gemma3", {"use_bidirectional_attention": True}),
    "scaled local rotation": ("gemma3", gemma_rope(sliding_attention={"rope_type": "linear", "factor": 4.0})),
}


@pytest.mark.parametrize("name", SILENT)
def test_what_llama_cpp_does_not_do_is_refused(name: str) -> None:
    """Each of these gives other logits in llama.cpp than in transformers, or a file that it cannot load."""
    arch, changes = SILENT[name]
    with pytest.raises(Unsupported):
        described(config_of(arch, **changes))


def test_gemma3_with_other_layers_is_refused() -> None:
    layers = ["sliding_attention", "full_attention"] * 3
    with pytest.raises(
        Unsupported, match=r"layer_types: llama\.cpp's gemma3 has full attention in every 6th layer only"
    ):
        described(config_of("gemma3", num_hidden_layers=6, layer_types=layers))
    described(config_of("gemma3", num_hidden_layers=6, layer_types=["sliding_attention"] * 5 + ["full_attention"]))


def test_gemma3_with_capped_attention_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"attn_logit_softcapping: llama\.cpp's gemma3 has none"):
        described(config_of("gemma3", attn_logit_softcapping=50.0))


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(
    "changes", [{}, {"factor": 32.0}, {"rope_theta": 500_000.0}, {"low_freq_factor": 2.0, "high_freq_factor": 8.0}]
)
def test_llama3_factors_are_those_of_transformers(head_dim: int, changes: dict[str, float]) -> None:
    settings = {**LLAMA3, **changes}
    config = LlamaConfig(head_dim=head_dim, **rope(**settings))
    expected, scale = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    assert scale == 1.0
    factors = described({**config.to_dict(), "architectures": ["LlamaForCausalLM"]})["rope_freqs.weight"]
    base = 1.0 / (config.rope_parameters["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim))
    assert factors.shape == (head_dim // 2,)
    assert len(factors.unique()) > 3  # some kept, some divided, some between
    torch.testing.assert_close(base / factors, expected, rtol=1e-6, atol=0)


def test_other_models_have_no_factors() -> None:
    assert not Layout(config_of("llama")).extra()
    assert not Layout(config_of("qwen2", **rope(**YARN))).extra()


@pytest.mark.parametrize("arch", ["llama", "mistral"])
@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize(("projection", "heads"), [("q_proj", 4), ("k_proj", 2)])
def test_queries_and_keys_are_undone_by_transformers_own_inverse(
    arch: str, part: str, projection: str, heads: int
) -> None:
    layout = Layout(config_of(arch, hidden_size=64, num_attention_heads=4, num_key_value_heads=2))
    tensor = torch.randn(heads * 16, 64) if part == "weight" else torch.randn(heads * 16)
    name = f"model.layers.0.self_attn.{projection}.{part}"
    changed = layout.values(name, tensor)
    assert changed.shape == tensor.shape
    assert not torch.equal(changed, tensor)
    undone = LlamaTensorProcessor()._reverse_permute_weights(changed.numpy(), heads)
    assert np.array_equal(undone, tensor.numpy())


@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("llama", "model.layers.0.self_attn.v_proj.weight"),
        ("llama", "model.layers.0.self_attn.o_proj.weight"),
        ("llama", "model.layers.0.mlp.up_proj.weight"),
        ("llama", "model.norm.weight"),
        ("qwen2", "model.layers.0.self_attn.q_proj.weight"),
        ("qwen3", "model.layers.0.self_attn.k_proj.weight"),
        ("gemma3", "model.layers.0.self_attn.q_proj.weight"),
    ],
)
def test_other_tensors_stay_as_they_are(arch: str, name: str) -> None:
    tensor = torch.randn(64, 64)
    layout = Layout(config_of(arch, hidden_size=64, num_attention_heads=4, num_key_value_heads=2))
    assert torch.equal(layout.values(name, tensor), tensor)


def test_gemma3_norms_are_shifted() -> None:
    layout = Layout(config_of("gemma3"))
    tensor = torch.randn(8, dtype=torch.bfloat16)
    for name in ("model.norm.weight", "model.layers.3.self_attn.q_norm.weight"):
        assert torch.equal(layout.values(name, tensor), tensor.float() + 1)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.nonesuch.weight", "model.layers.99.mlp.up_proj.weight", "score.weight", ""]
)
@pytest.mark.parametrize("arch", CONFIGS)
def test_unknown_tensors_are_refused(arch: str, name: str) -> None:
    layout = Layout(config_of(arch, num_hidden_layers=6))
    with pytest.raises(Unsupported) as caught:
        layout.name(name)
    assert str(caught.value) == f"the tensor {name} has no place in GGUF's {layout.architecture.name}"


def test_what_can_be_computed_anew_is_left_out() -> None:
    layout = Layout(config_of("llama"))
    assert layout.name("model.layers.0.self_attn.rotary_emb.inv_freq") is None
    assert layout.name("model.layers.0.self_attn.q_proj.weight") == "blk.0.attn_q.weight"
    assert layout.name("lm_head.weight") == "output.weight"


MODELS = {
    **{arch: (arch, {}) for arch in CONFIGS},
    **{f"{arch}, linear": (arch, rope(rope_type="linear", factor=4.0)) for arch in ("llama", "mistral", "qwen2")},
    **{f"{arch}, yarn": (arch, rope(**YARN)) for arch in ("llama", "qwen2", "qwen3")},
    "llama, yarn spelled out": ("llama", rope(**YARN, **YARN_DEFAULTS)),
    "llama, llama3": ("llama", rope(**{**LLAMA3, "original_max_position_embeddings": 64})),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "gemma3, linear": ("gemma3", gemma_rope(full_attention={"rope_type": "linear", "factor": 8.0})),
    "gemma3, capped": ("gemma3", {"final_logit_softcapping": 5.0}),
}


@pytest.mark.parametrize("name", MODELS)
def test_llama_cpp_computes_what_transformers_computes(tmp_path: Path, name: str) -> None:
    """Gemma 3 less closely: its activation is a table in half precision in llama.cpp."""
    arch, changes = MODELS[name]
    tokenizer = tiny.byte_tokenizer(16)
    size = len(tokenizer["tokenizer.ggml.tokens"].value)
    model = hf.tiny_hf(tmp_path, arch, size, **changes)
    hf.bpe_files(tmp_path, tokenizer)
    checkpoint = checkpoint_of(model)
    path = tmp_path / "model.gguf"
    write_model(path, checkpoint, vocabulary.from_folder(tmp_path, checkpoint.config), {}, "F32")
    tokens = np.random.default_rng(0).integers(3, size, 160).tolist()  # longer than the windows and contexts above
    (found,), expected = file_logits(path, None, [Sample(tokens, 1)]), torch_logits(model, tokens)
    assert np.abs(found - expected).max() < (1e-3 if arch == "gemma3" else 1e-4) * np.abs(expected).max()
