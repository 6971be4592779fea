"""Two roles of one model: one context whose adapter is switched, or a context for each role.

usage: python -m benchmarks.contexts MODEL PROBLEMS.jsonl [--strategy exact] [--questions 16] [--repeats 5]

The roles have the adapters that ship. Both solvers answer the same questions in turn, one by one and eight at once;
both engines of the second work in one thread, so that they do not contend for the cores. No question is asked twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import click

from sgft_edge import Question, Settings, Solution, Solver
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.role import LocalRole
from sgft_edge.reasoning.problems import read_problems
from sgft_edge.solving.cast import Cast, open_cast
from sgft_edge.solving.wanted import Wanted

PARALLEL = 8


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--strategy", default="exact", show_default=True)
@click.option("--questions", "count", default=16, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=physical_cores(), show_default=True)
def main(model: str, problems: Path, strategy: str, count: int, repeats: int, threads: int) -> None:
    """Print medians of seconds for both, and how often adapters were switched."""
    questions = [problem.asked for problem in islice(read_problems(problems), 2 * repeats * count + 1)]
    settings = Settings(strategy, plan="first", max_tokens=64)
    with Solver(_one(model, threads), settings) as one, Solver(_two(model, threads), settings) as two:
        for solver in (one, two):
            solver.solve(questions[-1])  # weights into memory
        for at_once, offset in ((False, 0), (True, repeats * count)):
            runs: list[tuple[float, float]] = []
            for start in range(offset, offset + repeats * count, count):
                asked = questions[start : start + count]
                order = (one, two) if len(runs) % 2 == 0 else (two, one)
                seconds = {solver: _seconds(solver, asked, at_once) for solver in order}
                runs.append((seconds[one], seconds[two]))
            switched, apart = (median(side) for side in zip(*runs, strict=True))
            how = f"{PARALLEL} at once" if at_once else "one by one"
            print(f"{strategy}, {count} questions {how}: one context {switched:.1f} s, two {apart:.1f} s", end=", ")
            print(f"{median(a / b for a, b in runs):.2f}x")
        (engine,) = one.cast.engines
        print(f"{engine.switches} switches of the one context")  # type: ignore[attr-defined]


def _one(model: str, threads: int) -> Cast:
    wanted = Wanted(guide=model, plan="first", context=1024, parallel=PARALLEL, threads=threads, device="cpu")
    return open_cast(wanted)


def _two(model: str, threads: int) -> Cast:
    """The same cast, with an engine of its own for the answerer."""
    cast = _one(model, threads)
    role = cast.answerer
    assert isinstance(role, LocalRole)
    engine = Engine(role.engine.model.path, slots=PARALLEL, window=1024, threads=threads)
    adapters = {task: engine.adapter(adapter.path) for task, adapter in role.adapters.items()}
    return replace(cast, answerer=LocalRole("answerer", engine, role.template, adapters))


def _seconds(solver: Solver, questions: Sequence[Question], at_once: bool) -> float:
    began = time.perf_counter()
    if at_once:
        assert all(isinstance(outcome, Solution) for outcome in solver.solve_many(questions))
    else:
        for question in questions:
            solver.solve(question)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
