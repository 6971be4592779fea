"""Driving an engine without the loop, writing down what it does, and comparing it with what it should do.

The last bits of a logit depend on the processor and on the batch that it is computed in, so two texts are compared by
their logits, within a tolerance and under the same tokens; or both are written alone, where every bit is the same.
"""

from __future__ import annotations

from pathlib import Path

import llama_cpp.llama_cpp as c
import numpy as np

from sgft_edge.llama.engine import Engine, Request, Sequence
from sgft_edge.llama.model import Adapter
from sgft_edge.reasoning.backend import Completion, Usage
from sgft_edge.reasoning.settings import Sampling

Cells = list[tuple[int, Path | None]]

TOLERANCE = 0.2
"""How far a logit of the tiny models may move with the batch that it is computed in.

Their standard deviation is about 4.8; the largest difference measured is 0.13, after 900 tokens.
"""


class Probe:
    """Notes every token that an engine decodes, as (slot, position, token, weights), and all logits that it samples."""

    def __init__(self, engine: Engine) -> None:
        self.rows: list[tuple[int, int, int, Adapter | None]] = []
        self.logits: dict[int, list[np.ndarray]] = {}
        self.most_sequences = 0
        self._weights: Adapter | None = None
        context = engine.context
        decode, use, logits = context.decode, context.use, context.logits

        def noted_decode(n: int) -> None:
            rows = zip(context.seq[:n].tolist(), context.pos[:n].tolist(), context.token[:n].tolist(), strict=True)
            self.rows += [(*row, self._weights) for row in rows]
            self.most_sequences = max(self.most_sequences, len(set(context.seq[:n].tolist())))
            decode(n)

        def noted_use(adapter: Adapter | None) -> None:
            self._weights = adapter
            use(adapter)

        def noted_logits(row: int) -> np.ndarray:
            values = logits(row)
            self.logits.setdefault(int(context.seq[row]), []).append(values.copy())
            return values

        context.decode, context.use, context.logits = noted_decode, noted_use, noted_logits  # type: ignore[method-assign]


def run(*requests: Request) -> list[Completion]:
    """Step until these completions of one engine are there; raise the first one's trouble."""
    engine = requests[0].engine
    for request in requests:
        engine.submit(request)
    while engine.busy:
        engine.step()
    for request in requests:
        if request.error is not None:
            raise request.error
    return [request.result for request in requests if request.result is not None]


def begin(
    engine: Engine,
    text: str | list[int],
    adapter: Adapter | None = None,
    sequence: Sequence | None = None,
    fixed: int = 0,
) -> Sequence:
    """A sequence, new unless one is given, that has this text before it."""
    sequence = sequence or engine.acquire()
    tokens = engine.model.tokenize(text, special=True) if isinstance(text, str) else text
    sequence.begin(tokens, adapter, Usage(), fixed)
    return sequence


def written(
    engine: Engine,
    text: str | list[int],
    n: int = 24,
    adapter: Adapter | None = None,
    sequence: Sequence | None = None,
    fixed: int = 0,
    sampling: Sampling | None = None,
) -> str:
    """What an engine writes after a text, in `n` tokens at most, alone; greedy unless told otherwise."""
    own = sequence or engine.acquire()
    own.alone = True
    try:
        return run(begin(engine, text, adapter, own, fixed).complete(n, sampling=sampling))[0].text
    finally:
        if sequence is None:
            own.close()


def logits_after(path: Path, cells: Cells, n: int = 1) -> list[np.ndarray]:
    """The logits after each of the last `n` of `cells`, which are tokens with the adapter that reads each.

    No engine is at work here: a context of its own decodes every token alone.
    """
    engine = Engine(path, slots=1, window=1024)
    try:
        context, out = engine.context, []
        adapters = {where: engine.adapter(where) for _, where in cells if where is not None}
        for position, (token, where) in enumerate(cells):
            context.use(adapters[where] if where is not None else None)
            context.token[0], context.pos[0], context.seq[0], context.output[0] = token, position, 0, 1
            context.decode(1)
            if position >= len(cells) - n:
                out.append(context.logits(0).copy())
        return out
    finally:
        engine.close()


def assert_read_right(path: Path, cells: Cells, found: list[np.ndarray], tokens: list[int] | None = None) -> None:
    """Compare the logits that a text was sampled from with those of the same tokens read one by one.

    `cells` stand before the text, and the last one's adapter goes on. Its `tokens` are the best ones unless given.
    """
    assert found, "nothing was sampled"
    tokens = [int(row.argmax()) for row in found] if tokens is None else tokens
    going_on = [(token, cells[-1][1]) for token in tokens[: len(found) - 1]]
    expected = logits_after(path, [*cells, *going_on], len(found))
    for step, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert np.abs(one - other).max() <= TOLERANCE, f"step {step}"


def by_base(tokens: list[int]) -> Cells:
    """Tokens that no adapter reads."""
    return [(token, None) for token in tokens]


def sampled_tokens(sequence: Sequence, prompt: list[int]) -> list[int]:
    """The tokens that a sequence holds after a prompt, read or not yet."""
    return [token for token, _ in (*sequence.cells, *sequence.pending)][len(prompt) :]


def kv_text(sequence: Sequence, start: int) -> bytes:
    """The bytes that a sequence holds from token `start` on: read, still to be read, and the rest of a cut token."""
    model = sequence._engine.model
    cells = [token for token, _ in sequence.cells[start:]] + [token for token, _ in sequence.pending]
    return b"".join(model.piece(token) for token in cells) + sequence.tail


def cells_in_cache(sequence: Sequence) -> int:
    """How many tokens llama.cpp itself holds for a sequence."""
    return int(c.llama_memory_seq_pos_max(sequence._engine.context._memory, sequence.slot)) + 1
