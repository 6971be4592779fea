"""A base with a fresh adapter on it, ready to be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, get_peft_model

from sgft_edge.binding import Model
from sgft_edge.errors import InputError
from train.rows import Example
from train.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(
    base: PreTrainedModel, settings: TrainSettings, dtype: torch.dtype | None = None
) -> PeftModel | PreTrainedModel:
    """The base, frozen, with a LoRA on every linear layer of its blocks, or of the upper ones. Raises `InputError`.

    The base is held in `dtype`, where one is given; what is trained is float32. With LISA that is the base itself.
    """
    if settings.method == "lisa":
        return base.float()
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
    model = get_peft_model(base.to(dtype) if dtype else base, config)
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
