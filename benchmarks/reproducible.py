"""What reproducible questions cost: the same questions with and without, interleaved.

usage: python -m benchmarks.reproducible MODEL PROBLEMS.jsonl [--questions 16] [--repeats 3] [--parallel 4]

Three loads: questions one after another, as many side by side, and the last turn of a conversation. The texts of
the two may differ, so times are given for a decoded token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import click

from sgft_edge import Question, Settings, Solution, Solver
from sgft_edge.host.machine import physical_cores
from sgft_edge.reasoning.problems import read_problems

TURNS = 6


def one_by_one(solver: Solver, questions: list[Question], settings: Settings) -> list[Solution]:
    return [solver.solve(question, settings) for question in questions]


def side_by_side(solver: Solver, questions: list[Question], settings: Settings) -> list[Solution]:
    return [found for found in solver.solve_many(questions, settings) if isinstance(found, Solution)]


def last_turn(solver: Solver, questions: list[Question], settings: Settings) -> list[Solution]:
    """A reply to a conversation whose earlier turns were just read."""
    said = [turn for q in questions[: TURNS - 1] for turn in (("user", q.text), ("assistant", "I do not know."))]
    before = Question(questions[TURNS - 2].text, history=tuple(said[:-2]))
    solver.solve(before, Settings("chat", max_tokens=1))
    talk = Settings("chat", max_tokens=settings.max_tokens, reproducible=settings.reproducible)
    return [solver.solve(Question(questions[TURNS - 1].text, history=tuple(said)), talk)]


LOADS = (one_by_one, side_by_side, last_turn)


def timed(run: Callable[[Solver, list[Question], Settings], list[Solution]], *given: object) -> float:
    """Milliseconds for each decoded token of a load, its last turn's alone."""
    began = time.perf_counter()
    found = run(*given)  # type: ignore[arg-type]
    seconds = found[0].seconds if run is last_turn else time.perf_counter() - began
    return 1000 * seconds / sum(solution.decoded for solution in found)


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--questions", "count", default=16, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--parallel", default=4, show_default=True)
@click.option("--strategy", default="exact", show_default=True)
@click.option("--max-tokens", default=64, show_default=True)
@click.option("--threads", default=physical_cores(), show_default=True)
def main(
    model: str, problems: Path, count: int, repeats: int, parallel: int, strategy: str, max_tokens: int, threads: int
) -> None:
    """Print the medians and their ratios."""
    questions = [p.question for p in islice(read_problems(problems), max(count, TURNS)) if p.question]
    free, fixed = (Settings(strategy, max_tokens=max_tokens, reproducible=asked) for asked in (False, True))
    with Solver.open(model, settings=free, threads=threads, parallel=parallel) as solver:
        side_by_side(solver, questions, free)  # weights into memory, prefixes read
        for load in LOADS:
            runs = [[timed(load, solver, questions, settings) for settings in (free, fixed)] for _ in range(repeats)]
            plain, alone = (median(side) for side in zip(*runs, strict=True))
            name = load.__name__.replace("_", " ")
            print(f"{name}: {plain:.1f} ms a token, reproducible {alone:.1f} ms, {alone / plain:.2f} times as long")


if __name__ == "__main__":
    main()
