"""Whether what a guide in training writes would pass as guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from sgft_edge.llama.model import Model
from train.check_sg import Row, faults_of
from train.rows import Example

if TYPE_CHECKING:
    from train.loop import Trainer

_TOKENS = 192
_BATCH = 32


def valid_share(trainer: Trainer, vocabulary: Model, rows: Sequence[Row], examples: Sequence[Example]) -> float:
    """The share of `rows` for which the model, decoding greedily, writes a guidance without fault.

    `examples` are the same rows for the role guide.
    """
    valid = 0
    for i in range(0, len(rows), _BATCH):
        written = _written(trainer, examples[i : i + _BATCH])
        for row, tokens in zip(rows[i : i + _BATCH], written, strict=True):
            text = b"".join(vocabulary.piece(token) for token in tokens).decode("utf-8", "replace")
            valid += not any(faults_of(replace(row, guidance=text.strip(), expressions=None)))
    return valid / len(rows)


def _written(trainer: Trainer, examples: Sequence[Example]) -> list[list[int]]:
    """What follows each prompt, up to the end of the turn."""
    end = examples[0].completion[-1]
    width = max(len(example.prompt) for example in examples)
    padded = [[end] * (width - len(example.prompt)) + list(example.prompt) for example in examples]
    mask = [[0] * (width - len(example.prompt)) + [1] * len(example.prompt) for example in examples]
    trainer.model.eval()
    with torch.no_grad(), trainer.arithmetic():
        ids = trainer.model.generate(
            input_ids=torch.tensor(padded, device=trainer.device),
            attention_mask=torch.tensor(mask, device=trainer.device),
            do_sample=False,
            max_new_tokens=_TOKENS,
            eos_token_id=end,
            pad_token_id=end,
        )
    written: list[list[int]] = ids[:, width:].tolist()
    return [tokens[: tokens.index(end)] if end in tokens else tokens for tokens in written]
