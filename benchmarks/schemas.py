"""What holding a text to a JSON schema costs: `python benchmarks/schemas.py MODEL.gguf`.

Prints milliseconds of processor time and MB of 10**6 bytes for the vocabulary, and for each schema the compilation and,
along a text that fits, microseconds to look at one token and to mask the whole vocabulary.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sgft_edge.host.machine import resident_bytes
from sgft_edge.llama.matching import Matchers
from sgft_edge.llama.model import Model
from sgft_edge.reasoning.schema import ANY_OBJECT, JsonSchema

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "born": {"type": "string", "pattern": r"^\d{4}-\d{2}$"},
        "height": {"type": "number"},
    },
    "required": ["name", "born", "height"],
}
TEXT = '{"name": "Ada Lovelace", "born": "1815-12", "height": 1.65}'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    model = Model(parser.parse_args().model, vocab_only=True)
    matchers, ids = Matchers(model), np.arange(model.n_vocab)
    before = resident_bytes() or 0
    _, first = timed(lambda: matchers.hold(ANY_OBJECT))
    print(f"{model.n_vocab} tokens: {1e3 * first:.0f} ms, {((resident_bytes() or 0) - before) / 1e6:.0f} MB")
    for name, schema in (("any object", ANY_OBJECT), ("a person", JsonSchema.of(PERSON))):
        matcher, compiling = timed(partial(matchers.begin, schema))
        one, whole = [], []
        for token in model.tokenize(TEXT):
            one.append(timed(partial(matcher.allowed, [token]))[1])
            whole.append(timed(partial(matcher.allowed, ids))[1])
            matcher.accept(token)
        print(f"{name}: {1e3 * compiling:.1f} ms; us {spread(one)} for one token, {spread(whole)} for all")
    model.close()
    return 0


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work returns, and its seconds of processor time."""
    began = time.process_time()
    return work(), time.process_time() - began


def spread(seconds: list[float]) -> str:
    """Median and maximum in microseconds."""
    return f"{1e6 * float(np.median(seconds)):.0f} (at most {1e6 * max(seconds):.0f})"


if __name__ == "__main__":
    raise SystemExit(main())
