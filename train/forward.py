"""One batch forward: what all rows share is computed once, and logits only where something is learned.

A row is [shared][its own prompt][completion]. For a LoRA the shared part is the fixed beginning of the prompts, read
once for each batch with the adapter in it and with gradients. For an activated LoRA everything before its invocation
is the base's: it is read without gradients, and once for the whole training, since nothing ever changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, DynamicLayer

from train.rows import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Past = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, each of shape (rows, heads, tokens, head size)."""


@dataclass(frozen=True)
class Batch:
    """Rows padded at their right. `tokens` and `learned` are (rows, tokens), `past` of each row has `lengths` tokens.

    `learned` marks the tokens that are to be predicted, by the position before them.
    """

    tokens: torch.Tensor
    valid: torch.Tensor
    learned: torch.Tensor
    starts: torch.Tensor

    @property
    def targets(self) -> int:
        return int(self.learned.sum())


class _Past(DynamicLayer):  # type: ignore[misc]
    """What stands before a forward's own tokens in one layer. It never grows: a layer computed again finds the same."""

    own: tuple[torch.Tensor, torch.Tensor]

    def __init__(self, past: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__()
        if past is not None:
            self.lazy_initialization(*past)
            self.keys, self.values = past

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.own = key_states, value_states
        if not self.is_initialized:
            return self.own
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


def base_of(model: PeftModel | PreTrainedModel) -> Any:
    """The model of transformers, where it is wrapped by PEFT."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def split_at(example: Example, method: str, invocation: Sequence[int]) -> int:
    """Where a row's own part begins: after the fixed prompt, or at the invocation of an activated LoRA."""
    if method != "alora":
        return example.fixed
    mark = tuple(invocation)
    for start in range(len(example.prompt) - len(mark), -1, -1):
        if example.prompt[start : start + len(mark)] == mark:
            return start
    raise ValueError(f"the prompt of {example.id} does not hold the invocation")


def collate(examples: Sequence[Example], starts: Sequence[int]) -> Batch:
    """The rows' own parts, from `starts` on."""
    tokens, learned = [], []
    for example, start in zip(examples, starts, strict=True):
        own = example.prompt[start:]
        tokens.append(torch.tensor([*own, *example.completion]))
        learned.append(torch.tensor([False] * len(own) + list(example.learned)))
    return Batch(
        pad_sequence(tokens, batch_first=True),
        pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in tokens], batch_first=True),
        pad_sequence(learned, batch_first=True),
        torch.tensor(list(starts)),
    )


def read_shared(model: PeftModel | PreTrainedModel, tokens: Sequence[int]) -> Past:
    """Keys and values of a text that begins a row."""
    base = base_of(model)
    cache = Cache(layer_class_to_replicate=_Past)  # of no sliding window, which would drop what masks hide already
    device = next(base.parameters()).device
    base.get_decoder()(input_ids=torch.tensor([list(tokens)], device=device), past_key_values=cache, use_cache=True)
    return [layer.own for layer in cache.layers]


def stack(pasts: Sequence[Past]) -> Past:
    """Several rows' pasts as one, padded at their left with zeros: what follows is then as far from them as it was."""
    stacked: Past = []
    for layer in zip(*pasts, strict=True):
        width = max(keys.shape[2] for keys, _ in layer)
        parts = [
            tuple(torch.nn.functional.pad(part, (0, 0, width - part.shape[2], 0)) for part in pair) for pair in layer
        ]
        stacked.append((torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])))
    return stacked


def loss_of(model: PeftModel | PreTrainedModel, batch: Batch, past: Past) -> torch.Tensor:
    """Sum of the cross-entropies of the learned tokens, in nats."""
    base = base_of(model)
    hidden = _hidden(base, batch, past)
    predicting = torch.roll(batch.learned, -1, dims=1)  # position i predicts token i + 1; column 0 is never learned
    predicting[:, -1] = False
    logits = base.get_output_embeddings()(hidden[predicting])
    return cross_entropy(logits.float(), batch.tokens[batch.learned], reduction="sum")


def _hidden(base: Any, batch: Batch, past: Past) -> torch.Tensor:
    """Hidden states of the batch's tokens, shape (rows, tokens, width)."""
    rows, length = batch.tokens.shape
    width = past[0][0].shape[2]
    cache = Cache([_Past((keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))) for keys, values in past])
    before = torch.arange(width, device=batch.starts.device)[None, :] >= width - batch.starts[:, None]
    own = torch.arange(length, device=batch.starts.device)[None, :]
    states: torch.Tensor = base.get_decoder()(
        input_ids=batch.tokens,
        attention_mask=torch.cat([before, batch.valid], dim=1),
        position_ids=batch.starts[:, None] + own,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return states
