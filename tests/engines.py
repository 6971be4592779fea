"""Driving an engine without the loop, and writing down what it does."""

from __future__ import annotations

from pathlib import Path

import llama_cpp.llama_cpp as c
import numpy as np

from sgft_edge.binding import Adapter
from sgft_edge.engine import Completion, Engine, Request, Sequence, Usage
from sgft_edge.settings import Sampling

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
    """What an engine writes after a text, in `n` tokens at most; greedy unless told otherwise."""
    own = sequence or engine.acquire()
    try:
        return run(begin(engine, text, adapter, own, fixed).complete(n, sampling=sampling))[0].text
    finally:
        if sequence is None:
            own.close()


def fresh_logits(path: Path, cells: list[tuple[int, Path | None]], n: int) -> list[np.ndarray]:
    """Logits after `cells` (tokens and the adapter that reads each) and after each of `n` greedy tokens, one by one.

    No engine is at work here: a context of its own decodes every token alone, and the last adapter goes on.
    """
    engine = Engine(path, slots=1, window=1024)
    try:
        context, model = engine.context, engine.model
        adapters = {where: engine.adapter(where) for _, where in cells if where is not None}
        out: list[np.ndarray] = []
        for position in range(len(cells) + n):
            token, where = cells[position] if position < len(cells) else (int(out[-1].argmax()), cells[-1][1])
            context.use(adapters[where] if where is not None else None)
            context.token[0], context.pos[0], context.seq[0], context.output[0] = token, position, 0, 1
            context.decode(1)
            if position >= len(cells) - 1:
                out.append(context.logits(0).copy())
        assert model.n_vocab == len(out[0])
        return out
    finally:
        engine.close()


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> int:
    """Compare greedy decodings by their logits, up to where two tokens are too close to tell; return how many agree."""
    for step, (one, other) in enumerate(zip(found, expected, strict=False)):
        assert np.abs(one - other).max() <= TOLERANCE, f"step {step}"
        second, best = np.sort(other)[-2:]
        if best - second > TOLERANCE:
            assert one.argmax() == other.argmax(), f"step {step}"
        elif one.argmax() != other.argmax():
            return step
    return min(len(found), len(expected))


def kv_text(sequence: Sequence, start: int) -> bytes:
    """The bytes that a sequence holds from token `start` on: read, still to be read, and the rest of a cut token."""
    model = sequence._engine.model
    cells = [token for token, _ in sequence.cells[start:]] + [token for token, _ in sequence.pending]
    return b"".join(model.piece(token) for token in cells) + sequence.tail


def cells_in_cache(sequence: Sequence) -> int:
    """How many tokens llama.cpp itself holds for a sequence."""
    return int(c.llama_memory_seq_pos_max(sequence._engine.context._memory, sequence.slot)) + 1
