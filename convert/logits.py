"""Logits of whole texts: from a GGUF file through llama.cpp, and from a model in torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from convert.samples import WINDOW, Sample
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.context import Context
from sgft_edge.llama.model import Adapter, Model
from sgft_edge.llama.tuning import Tuning

Logits = NDArray[np.float32]

_BATCH = 512


class GgufModel:
    """A GGUF file, with an adapter or without.

    `exact` keeps the KV cache in float32 and computes attention plainly, so that only the weights' types differ from
    torch. Close it after use.
    """

    def __init__(self, path: Path, adapter: Path | None = None, window: int = WINDOW, exact: bool = False) -> None:
        self.model = Model(path)
        try:
            self._adapter = Adapter(self.model, adapter) if adapter is not None else None
            cores = physical_cores()
            tuning = Tuning(cores, cores, batch=_BATCH)
            self._context = Context(self.model, 1, window, tuning, outputs=_BATCH, offload=False, exact=exact)
        except BaseException:
            self.model.close()
            raise

    def logits(self, tokens: Sequence[int], start: int = 0) -> Logits:
        """Logits after each token from `start` on, shape (len(tokens) - start, n_vocab).

        An activated LoRA reads from the last occurrence of its invocation on. Raises `ContextOverflow`.
        """
        self._context.keep(0, 0)
        rows = []
        begin = self._activation(tokens)
        for first in sorted({*range(0, begin, _BATCH), *range(begin, len(tokens), _BATCH)}):
            end = min(first + _BATCH, begin if first < begin else len(tokens))
            self._context.use(self._adapter if first >= begin else None)
            rows += self._decode(tokens[first:end], first, max(start, first))
        return np.stack(rows)

    def _activation(self, tokens: Sequence[int]) -> int:
        mark = list(self._adapter.invocation) if self._adapter is not None else []
        if not mark:
            return 0
        places = range(len(tokens) - len(mark), -1, -1)
        return next((i for i in places if list(tokens[i : i + len(mark)]) == mark), len(tokens))

    def _decode(self, tokens: Sequence[int], position: int, start: int) -> list[Logits]:
        context, n = self._context, len(tokens)
        context.token[:n] = tokens
        context.pos[:n] = range(position, position + n)
        context.seq[:n] = 0
        wanted = [i for i in range(n) if position + i >= start]
        context.output[:n] = 0
        context.output[wanted or [n - 1]] = 1
        context.decode(n)
        return [context.logits(i).copy() for i in wanted]

    def greedy(self, tokens: Sequence[int], n: int) -> str:
        """The text of the `n` most likely next tokens, up to the end of the turn."""
        written: list[int] = []
        logits = self.logits(tokens, len(tokens) - 1)[0]
        while len(written) < n and not self.model.ends_generation(best := int(logits.argmax())):
            written.append(best)
            position = len(tokens) + len(written) - 1
            logits = self._decode([best], position, position)[0]
        return b"".join(self.model.piece(token) for token in written).decode(errors="replace")

    def close(self) -> None:
        self._context.close()
        if self._adapter is not None:
            self._adapter.close()
        self.model.close()

    def __enter__(self) -> GgufModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def file_logits(path: Path, adapter: Path | None, samples: Sequence[Sample]) -> list[Logits]:
    """Exact logits of a GGUF file after every token of each sample."""
    with GgufModel(path, adapter, exact=True) as model:
        return [model.logits(sample.tokens) for sample in samples]


def torch_logits(model: torch.nn.Module, tokens: Sequence[int], start: int = 0) -> Logits:
    """What `GgufModel.logits` gives, from a model of transformers or PEFT."""
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, start:]
    logits: Logits = out.float().numpy()
    return logits
