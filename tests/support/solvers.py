"""Solvers of tiny models, and what tests ask them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.solution import Solution
from sgft_edge.solver import Solver

BIKES = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"


PLAN = "1. Find the money from all bikes.\n2. Find what is left."


FREE = Settings("cot", max_tokens=12)


def open_tiny(path: Path, **options: object) -> Solver:
    return Solver.open(path, threads=2, **{"adapter": "none", "context": 1024, **options})  # type: ignore[arg-type]


def all_free(solver: Solver) -> bool:
    return all(engine.free == engine.slots for engine in solver.cast.engines)


def same(one: Solution, other: Solution) -> bool:
    """Whether two solutions agree in all but what was reused and how long it took."""
    kept = {"seconds": 0.0, "usage": {}}
    return replace(one, **kept) == replace(other, **kept)
