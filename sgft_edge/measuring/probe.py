"""What a batch of a few tokens costs: `python -m sgft_edge.measuring.probe` reads a `Probe` and writes the costs.

Guessed tokens are read in one batch with the last decoded one. How much longer that takes depends on the machine: next
to nothing where memory is the bottleneck, nearly as many times as long where arithmetic is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from sgft_edge.errors import SgftError
from sgft_edge.host.child import run_child
from sgft_edge.llama.tuning import Tuning

_DEPTH = 256  # tokens before the batch
_REPEATS = 9


def main() -> int:
    """Measure what standard input asks for; what goes wrong is the last line of stderr."""
    try:
        json.dump(costs(**json.load(sys.stdin)), sys.stdout)
    except SgftError as e:
        print(e, file=sys.stderr)
        return e.exit_status
    return 0


def costs_apart(model: Path, tuning: Tuning, drafts: Sequence[int]) -> dict[int, float]:
    """The `costs` by tokens, measured in a process of its own. Raises `EngineError` with what went wrong there."""
    found = run_child(__name__, {"model": str(model), "tuning": asdict(tuning), "drafts": drafts})
    return {int(tokens): cost for tokens, cost in found.items()}


def costs(model: str, tuning: Mapping[str, Any], drafts: Sequence[int]) -> dict[str, float]:
    """The time of a batch with so many guessed tokens, in times of a batch without; medians, measured in turn."""
    from sgft_edge.llama.engine import Engine
    from sgft_edge.reasoning.backend import Usage

    settings = replace(Tuning(**tuning), draft_tokens=max(drafts))  # makes room for as many rows of logits
    engine = Engine(Path(model), window=_DEPTH + max(drafts) + 1, tuning=settings)
    text = engine.model.tokenize(", ".join(map(str, range(_DEPTH))))[:_DEPTH]
    sequence = engine.acquire()
    sequence.begin(text, None, Usage())
    engine.submit(sequence.complete(1))
    while engine.busy:
        engine.step()
    held = len(sequence.cells)
    seconds: dict[int, list[float]] = {n: [] for n in (0, *drafts)}
    for _ in range(_REPEATS):
        for guessed, found in seconds.items():
            sequence.pending = [(text[0], None)]
            began = time.perf_counter()
            engine.read(sequence, text[1 : guessed + 1])
            sequence.cut(held)
            found.append(time.perf_counter() - began)
    engine.close()
    one = median(seconds[0])
    return {str(n): max(median(seconds[n]) / one, 1.0) for n in drafts}


if __name__ == "__main__":
    sys.exit(main())
