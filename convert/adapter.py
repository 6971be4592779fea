"""A PEFT adapter's folder: what it is, and what of it can be merged or written as an adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import nn

from convert.errors import BaseMismatch, ConversionError, Unsupported
from convert.record import TrainingRecord

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_NEVER = (
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
_MERGED_ONLY = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "lora_bias": "lora_bias",
    "trainable_token_indices": "trainable_token_indices",
}
_HARMLESS_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class AdapterFolder:
    """`shapes` are those of the stored tensors by name; `record` is what our training wrote beside them, if it did."""

    path: Path
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    record: TrainingRecord | None

    @property
    def invocation(self) -> list[int]:
        """The tokens that switch an activated LoRA on; empty for others."""
        return list(self.config.get("alora_invocation_tokens") or [])

    @property
    def base(self) -> str | None:
        """What the adapter says it was trained on."""
        return self.config.get("base_model_name_or_path")

    def check_mergeable(self) -> None:
        """Raise `Unsupported` where no merged model can stand for it."""
        if self.invocation:
            raise Unsupported(
                f"{self.path}: an activated LoRA leaves the tokens before its invocation to the base, so it cannot be "
                "merged: use --format adapter"
            )

    def check_separable(self) -> None:
        """Raise `Unsupported` where llama.cpp's adapter files have no form for it."""
        for key, name in _MERGED_ONLY.items():
            if self.config.get(key):
                raise Unsupported(f"{self.path}: {name} has no form in an adapter's GGUF: use --format merged")
        if self.config.get("bias", "none") != "none":
            raise Unsupported(f"{self.path}: trained biases have no form in an adapter's GGUF: use --format merged")
        if (init := self.config.get("init_lora_weights")) not in _HARMLESS_INITS:
            raise Unsupported(
                f"{self.path}: init_lora_weights={init!r} changes the base's weights, which an adapter cannot carry: "
                "use --format merged"
            )


def read_adapter(path: Path) -> AdapterFolder:
    """Read an adapter's folder. Raises `ConversionError`, and `Unsupported` for what can neither be merged nor kept."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise ConversionError(f"{path / CONFIG}: expected PEFT's configuration: {e}") from e
    if not isinstance(config, dict):
        raise ConversionError(f"{path / CONFIG}: expected PEFT's configuration, found {type(config).__name__}")
    if (kind := config.get("peft_type")) != "LORA":
        raise Unsupported(f"{path}: expected peft_type LORA, found {kind!r}")
    for key in _NEVER:
        if config.get(key):
            raise Unsupported(f"{path}: {key} is not supported: merge it with PEFT and export the model's folder")
    if not (path / WEIGHTS).is_file():
        if (path / "adapter_model.bin").is_file():
            raise Unsupported(
                f"{path}: expected {WEIGHTS}, found adapter_model.bin, a pickle, which can run code when it is read: "
                "save the adapter with save_pretrained(safe_serialization=True)"
            )
        raise ConversionError(f"{path}: expected {WEIGHTS}, found no weights")
    try:
        with safe_open(path / WEIGHTS, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as e:
        raise ConversionError(f"{path / WEIGHTS}: expected a safetensors file: {e}") from e
    return AdapterFolder(path, config, shapes, TrainingRecord.read(path))


def attach(base: PreTrainedModel, adapter: AdapterFolder) -> PeftModel:
    """The base with the adapter in it. Raises `BaseMismatch` where one does not fit, or would get lost."""
    _check_shapes(base, adapter)
    _check_tied(base, adapter)
    from peft import PeftModel, get_peft_model_state_dict  # seconds, and only adapters need it

    replaced = _replaced(base, adapter)
    try:
        model = PeftModel.from_pretrained(base, str(adapter.path))
    except (RuntimeError, ValueError, KeyError, TypeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise BaseMismatch(f"{adapter.path}: PEFT cannot put it on {type(base).__name__}: {reason}") from e
    loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
    lost = [name for name in adapter.shapes if ".lora_" in name and name not in loaded]
    if lost:
        raise BaseMismatch(f"{adapter.path}: {len(lost)} tensors found no place in {type(base).__name__}: {lost[0]}")
    made_up = [name for name in loaded if ".lora_" in name and name not in adapter.shapes]
    if made_up:  # PEFT would go on with random ones
        raise BaseMismatch(f"{adapter.path}: it has no {made_up[0]}, which its configuration asks for in this base")
    model.replaced_weights = replaced
    return model.eval()


def _replaced(base: PreTrainedModel, adapter: AdapterFolder) -> list[str]:
    """Weights of the base that the adapter's file holds anew, beside its matrices."""
    own = dict(base.named_parameters())
    with safe_open(adapter.path / WEIGHTS, framework="pt") as file:
        names = [name for name in adapter.shapes if ".base_layer." in name]
        values = {name.removeprefix("base_model.model.").replace(".base_layer", ""): name for name in names}
        return [name for name, key in values.items() if name not in own or not own[name].equal(file.get_tensor(key))]


def _check_shapes(base: PreTrainedModel, adapter: AdapterFolder) -> None:
    modules = dict(base.named_modules())
    for name, shape in adapter.shapes.items():
        target, part, _ = name.removeprefix("base_model.model.").partition(".lora_")
        if not part or "magnitude" in name:
            continue
        module = modules.get(target)
        if not isinstance(module, nn.Linear | nn.Embedding):
            raise BaseMismatch(
                f"{adapter.path}: made for a base with {target}, which {type(base).__name__} has not"
                f"{_trained_on(adapter)}"
            )
        rows, columns = module.weight.shape
        outputs, inputs = (columns, rows) if isinstance(module, nn.Embedding) else (rows, columns)
        if name.endswith(("lora_A.weight", "lora_embedding_A")) and shape[-1] != inputs:
            found, expected = shape[-1], f"{inputs} inputs"
        elif name.endswith(("lora_B.weight", "lora_embedding_B")) and shape[0] != outputs:
            found, expected = shape[0], f"{outputs} outputs"
        else:
            continue
        raise BaseMismatch(
            f"{adapter.path}: expected {expected} of {target} as in the base, found {found}{_trained_on(adapter)}"
        )


def _check_tied(base: PreTrainedModel, adapter: AdapterFolder) -> None:
    """A change of one of two modules that share a matrix is no change of the other."""
    if not base.config.tie_word_embeddings:
        return
    for name in adapter.shapes:
        if ".lora_" in name and (".embed_tokens." in name or ".lm_head." in name):
            module = "embed_tokens" if ".embed_tokens." in name else "lm_head"
            raise Unsupported(
                f"{adapter.path}: it adapts {module}, which shares its matrix with another module in this base: "
                "train without it, or untie the base's embeddings first"
            )


def _trained_on(adapter: AdapterFolder) -> str:
    return f": it was trained on {adapter.base}; name the right base with --base" if adapter.base else ""
