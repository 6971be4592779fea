"""Texts for engines of tiny models."""

from __future__ import annotations

from pathlib import Path

from engines import begin, run, written

from sgft_edge.llama.engine import Engine
from sgft_edge.reasoning.backend import Completion
from sgft_edge.reasoning.settings import Sampling

TEXT = "A baker bakes twelve loaves of bread each morning. "
PROMPTS = [
    TEXT,
    "How many?",
    TEXT * 12 + "Then multiply the number left each day by the number of days.",
    "x",
    "The price of a ticket is eight dollars and the price of a drink is two dollars. " * 3,
]
SAMPLED = Sampling(temperature=1.0, seed=5)


def ids(engine: Engine, text: str) -> list[int]:
    return engine.model.tokenize(text, special=True)


def sampled(
    engine: Engine, grammar: str, seeds: range, max_tokens: int, stop: tuple[str, ...] = ()
) -> list[Completion]:
    sequences = [begin(engine, TEXT) for _ in seeds]
    wild = [Sampling(temperature=8.0, seed=seed) for seed in seeds]
    return run(*(s.complete(max_tokens, stop, grammar, how) for s, how in zip(sequences, wild, strict=True)))


def written_fresh(path: Path, text: str, n: int = 24) -> str:
    engine = Engine(path, window=256)
    try:
        return written(engine, text, n)
    finally:
        engine.close()
