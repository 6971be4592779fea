"""Layerwise importance sampled AdamW, the paper's own way of fine-tuning (LISA, https://arxiv.org/abs/2403.17919).

Embeddings, final norm and output are trained throughout; of the blocks only a few, drawn anew after every so many
steps. The others are frozen and have no state in the optimizer, so that full fine-tuning needs little more memory than
a LoRA. What comes out is a whole model, not an adapter.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convert.base import Base
from convert.unpack import write_tokenizer
from sgft_edge.errors import InputError
from train.settings import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convert.header import Metadata

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


class Blocks:
    """The blocks of a model, of which `lisa_blocks` are trained at a time. Raises `InputError` for too many."""

    def __init__(self, model: PreTrainedModel, settings: TrainSettings) -> None:
        self._blocks: list[torch.nn.Module] = list(model.get_decoder().layers)
        self._settings = settings
        if settings.lisa_blocks > len(self._blocks):
            raise InputError(f"lisa_blocks: the base has {len(self._blocks)}, found {settings.lisa_blocks}")

    def drawn(self, step: int) -> list[int]:
        """The blocks that a step trains."""
        draw = random.Random(f"{self._settings.seed} blocks {step // self._settings.lisa_every}")
        return sorted(draw.sample(range(len(self._blocks)), self._settings.lisa_blocks))

    def choose(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Free the blocks of a step; freeze the others, and forget what the optimizer knew of them."""
        drawn = self.drawn(step)
        for i, block in enumerate(self._blocks):
            for parameter in block.parameters():
                parameter.requires_grad_(i in drawn)
                if i not in drawn:
                    parameter.grad = None
                    optimizer.state.pop(parameter, None)


def save_model(folder: Path, model: Any, base: Base, tokenizer: Metadata) -> None:
    """Write a model's folder for transformers, with the tokenizer of its base. Raises `Unsupported`."""
    model.save_pretrained(str(folder))
    if base.is_gguf:
        write_tokenizer(folder, tokenizer)
        return
    for name in _TOKENIZER_FILES:
        if (base.path / name).is_file():
            shutil.copyfile(base.path / name, folder / name)
