"""The architectures that can be written: their hyperparameters as GGUF metadata, and how their tensors change.

Names and meanings are those of the GGUF specification and of llama.cpp's loaders:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gguf
import torch

from convert.checkpoint import Tensor
from convert.errors import ConversionError, Unsupported

_UNUSED = (".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias")
_GEMMA3_27B_LAYERS = 62  # by which llama.cpp knows the one that scales its attention otherwise
_GEMMA3_PATTERN = 6  # llama.cpp takes every sixth layer of Gemma 3 for one with full attention


@dataclass(frozen=True)
class Architecture:
    """How transformers' tensors of one family become llama.cpp's.

    `pairs`: the rotary embedding turns neighbouring rows, where transformers turns the two halves of a head.
    `norm_offset`: what transformers adds to a norm's weights when it uses them.
    """

    id: gguf.MODEL_ARCH
    pairs: bool = False
    norm_offset: float = 0.0

    @property
    def name(self) -> str:
        return str(gguf.MODEL_ARCH_NAMES[self.id])


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(gguf.MODEL_ARCH.LLAMA, pairs=True),
    "MistralForCausalLM": Architecture(gguf.MODEL_ARCH.LLAMA, pairs=True),
    "Qwen2ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Architecture(gguf.MODEL_ARCH.QWEN3),
    "Gemma3ForCausalLM": Architecture(gguf.MODEL_ARCH.GEMMA3, norm_offset=1.0),
}


def architecture_of(config: dict[str, Any]) -> Architecture:
    """The architecture of a configuration. Raises `Unsupported`."""
    name = (config.get("architectures") or ["none"])[0]
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Unsupported(f"expected one of {known}, found {name}: --converter PATH runs a llama.cpp checkout's own")
    return ARCHITECTURES[name]


class Layout:
    """The GGUF names and values of one model's tensors."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.architecture = architecture_of(config)
        self._names = gguf.get_tensor_name_map(self.architecture.id, config["num_hidden_layers"])

    def name(self, name: str) -> str | None:
        """The GGUF name of a tensor, None for one that llama.cpp does not need. Raises `Unsupported`."""
        if name.endswith(_UNUSED):
            return None
        found: str | None = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise Unsupported(f"the tensor {name} has no place in GGUF's {self.architecture.name}")
        return found

    def values(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor as llama.cpp wants it."""
        if self.architecture.norm_offset and name.endswith("norm.weight"):
            tensor = tensor.float() + self.architecture.norm_offset
        return self.rows(name, tensor)

    def rows(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The rows (outputs) of a matrix or bias in llama.cpp's order: queries and keys by neighbouring pairs."""
        if not self.architecture.pairs or ".self_attn." not in name:
            return tensor
        heads = self.config["num_attention_heads"]
        if ".k_proj." in name:
            heads = self.config.get("num_key_value_heads") or heads
        elif ".q_proj." not in name:
            return tensor
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
        return halves.swapaxes(1, 2).reshape(tensor.shape)

    def extra(self) -> list[Tensor]:
        """Tensors that GGUF has and the checkpoint has not: the frequency factors of Llama 3's long context."""
        rope = _rope(self.config)
        if (rope.get("rope_type") or "") != "llama3":
            return []
        factors = _llama3_factors(rope, _head_size(self.config))
        return [Tensor("rope_freqs.weight", tuple(factors.shape), lambda: factors)]


def add_hyperparameters(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    """Write what llama.cpp must know about the model. Raises `Unsupported` for what it cannot run."""
    architecture = architecture_of(config)
    rope = _rope(config)
    _check_granted(config, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(_context(config, architecture))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if (head_size := config.get("head_dim")) is not None:
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    if architecture.id is gguf.MODEL_ARCH.LLAMA:
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(_head_size(config))
    _add_rope_scaling(writer, rope)
    if architecture.id is gguf.MODEL_ARCH.GEMMA3:
        _add_gemma3(writer, config)


def _add_rope_scaling(writer: gguf.GGUFWriter, rope: dict[str, Any]) -> None:
    kind = rope.get("rope_type") or "default"
    if kind in ("default", "llama3"):  # the latter is a tensor
        return
    scaling = gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN
    writer.add_rope_scaling_type(scaling)
    writer.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _context(config: dict[str, Any], architecture: Architecture) -> int:
    """As far as llama.cpp computes what transformers does: its llama has no sliding window, as Mistral 7B v0.1 has."""
    context: int = config["max_position_embeddings"]
    window = config.get("sliding_window") if architecture.id is gguf.MODEL_ARCH.LLAMA else None
    return min(context, window) if window else context


def _check_granted(config: dict[str, Any], architecture: Architecture) -> None:
    """Raise `Unsupported` where a model does what llama.cpp does another way, whatever the file says."""
    granted: dict[str, Any] = {}
    if architecture.id is gguf.MODEL_ARCH.GEMMA3:
        granted["hidden_activation"] = "gelu_pytorch_tanh"
        granted["attn_logit_softcapping"] = None
        granted["use_bidirectional_attention"] = False
        largest = config["num_hidden_layers"] == _GEMMA3_27B_LAYERS
        size = config["hidden_size"] // config["num_attention_heads"] if largest else _head_size(config)
        granted["query_pre_attn_scalar"] = size
    else:
        granted["hidden_act"] = "silu"
    if architecture.id in (gguf.MODEL_ARCH.QWEN2, gguf.MODEL_ARCH.QWEN3):
        granted["use_sliding_window"] = False
    if architecture.id in (gguf.MODEL_ARCH.QWEN3, gguf.MODEL_ARCH.GEMMA3):
        granted["attention_bias"] = False
    for key, value in granted.items():
        if (found := config.get(key)) not in (value, None):
            raise Unsupported(f"{key}: llama.cpp's {architecture.name} has {_worded(value)}, found {found!r}")
    _check_rope(_rope(config), architecture)
    local = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    if (kind := local.get("rope_type") or "default") != "default":
        raise Unsupported(f"rope_type of the sliding layers: llama.cpp's gemma3 scales none of them, found {kind!r}")


def _check_rope(rope: dict[str, Any], architecture: Architecture) -> None:
    kind = rope.get("rope_type") or "default"
    if kind not in ("default", "linear", "yarn", "llama3"):
        raise Unsupported(f"expected rope_type default, linear, yarn or llama3, found {kind!r}")
    if (part := rope.get("partial_rotary_factor")) not in (None, 1.0):
        raise Unsupported(f"partial_rotary_factor: llama.cpp's {architecture.name} turns whole heads, found {part}")
    if kind == "llama3" and architecture.id is not gguf.MODEL_ARCH.LLAMA:
        raise Unsupported(f"rope_type llama3: llama.cpp's {architecture.name} has none")
    for key, value in _YARN.items() if kind == "yarn" else ():
        if key == "attention_factor" and rope.get(key) is not None:
            value = round(0.1 * math.log(rope["factor"]) + 1, 6)  # https://arxiv.org/abs/2309.00071, equation 22
        if (found := rope.get(key)) is not None and (value is None or not math.isclose(found, value, rel_tol=1e-5)):
            raise Unsupported(f"yarn's {key}: llama.cpp computes with {_worded(value)}, found {found!r}")


_YARN: dict[str, float | None] = {
    "beta_fast": 32,
    "beta_slow": 1,
    "attention_factor": None,
    "mscale": None,
    "mscale_all_dim": None,
    "truncate": True,
}


def _worded(value: Any) -> str:
    return "none" if value is None else repr(value)


def _add_gemma3(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    layers = config.get("layer_types") or []
    if any((kind == "full_attention") != ((i + 1) % _GEMMA3_PATTERN == 0) for i, kind in enumerate(layers)):
        raise Unsupported(f"layer_types: llama.cpp's gemma3 has full attention in every {_GEMMA3_PATTERN}th layer only")
    if (cap := config.get("final_logit_softcapping")) is not None:
        writer.add_final_logit_softcapping(cap)
    if config.get("sliding_window") is None:
        raise Unsupported("sliding_window: llama.cpp's gemma3 has one, found none")
    writer.add_sliding_window(config["sliding_window"])
    local = (config.get("rope_parameters") or {}).get("sliding_attention", {}).get("rope_theta")
    if local is not None:
        writer.add_rope_freq_base_swa(local)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding's parameters; of Gemma 3, those of its layers with full attention."""
    rope: dict[str, Any] = config.get("rope_parameters") or {}
    rope = rope.get("full_attention") or rope
    if rope.get("rope_theta") is None:
        raise ConversionError("config.json: expected a rope_theta, found none")
    return rope


def _head_size(config: dict[str, Any]) -> int:
    size: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return size


def _llama3_factors(rope: dict[str, Any], head_size: int) -> torch.Tensor:
    """What Llama 3.1 divides its rotary frequencies by, shape (head_size / 2,).

    https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py, `apply_scaling`.
    """
    frequencies = 1.0 / (rope["rope_theta"] ** (torch.arange(0, head_size, 2, dtype=torch.float32) / head_size))
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    factors = []
    for frequency in frequencies:
        length = 2 * math.pi / frequency
        if length < context / high:
            factors.append(1)
        elif length > context / low:
            factors.append(factor)
        else:
            smooth = (context / length - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors, dtype=torch.float32)
