"""A base with a fresh adapter on it, ready to be trained."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig

from sgft_edge.errors import InputError
from sgft_edge.llama.model import Model
from train.rows import Example
from train.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from convert.base import Base

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(base: Base, settings: TrainSettings, dtype: torch.dtype | None) -> PreTrainedModel:
    """The base as it is trained on: in float32, in `dtype`, or in 4 bits (QLoRA, https://arxiv.org/abs/2305.14314).

    Raises `InputError` for a base that cannot be packed, `ConversionError` where it cannot be loaded.
    """
    if not settings.load_in_4bit:
        return base.load().to(torch.float32 if dtype is None or settings.method == "lisa" else dtype)
    if base.is_packed:
        raise InputError("load_in_4bit: expected a base of plain weights, found packed ones: see `convert.unpack`")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("load_in_4bit: bitsandbytes is not installed: pip install bitsandbytes")
    packing = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype or torch.float32,
    )
    return base.load(dtype or torch.float32, packing=packing)


def adapted(base: PreTrainedModel, settings: TrainSettings) -> PeftModel | PreTrainedModel:
    """The base, frozen, with a LoRA on every linear layer of its blocks, or of the upper ones. Raises `InputError`.

    What is trained is float32. With LISA that is the base itself.
    """
    if settings.checkpointing:
        base.activation_checkpointing_enable({"use_reentrant": False})
        for layer in base.get_decoder().layers:
            layer._can_checkpoint_with_cache = True  # `forward` gives it one that does not grow
    if settings.method == "lisa":
        return base
    blocks = base.config.num_hidden_layers
    if settings.layers > blocks:
        raise InputError(f"layers: the base has {blocks}, found {settings.layers}")
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=list(TARGETS),
        layers_to_transform=list(range(blocks - settings.layers, blocks)) if settings.layers else None,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(base, config)
    for name, value in model.named_parameters():
        if value.requires_grad:
            value.data = value.data.float()
        assert value.requires_grad == (".lora_" in name)
    return model


def invocation_of(vocabulary: Model, examples: list[Example]) -> list[int]:
    """What switches an activated LoRA on: the end of every prompt from its last special token on.

    All that stands before it, the question above all, is read by the base alone: whoever answers with the same base
    need not read it again (https://arxiv.org/abs/2504.12397).
    """
    prompt = examples[0].prompt
    start = max(i for i, token in enumerate(prompt) if vocabulary.is_control(token))
    mark = list(prompt[start:])
    if any(list(example.prompt[-len(mark) :]) != mark for example in examples):
        raise InputError("method alora: expected prompts that end alike, as those of a chat template do")
    return mark


def arithmetic_of(settings: TrainSettings, device: torch.device) -> torch.dtype | None:
    """In what the base computes where that is not float32."""
    wanted = settings.dtype if settings.dtype != "auto" else ("bfloat16" if device.type == "cuda" else "float32")
    return torch.bfloat16 if wanted == "bfloat16" else None
