"""`Solver.solve_many` against one `Solver.solve` after another, on the same questions, interleaved.

usage: python benchmarks/many.py MODEL PROBLEMS.jsonl [--questions 32] [--repeats 5] [--parallel 8] [--strategy ...]

Both ways decode the same number of tokens or it says so: batched and single decoding differ in the last bits, so
that a text may now and then take another turn.
"""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from statistics import median

import click

from sgft_edge import Question, Settings, Solution, Solver
from sgft_edge.reasoning.problems import read_problems


def single(solver: Solver, questions: list[Question]) -> tuple[float, int]:
    """Seconds, and tokens decoded."""
    began = time.perf_counter()
    solutions = [solver.solve(question) for question in questions]
    return time.perf_counter() - began, sum(s.decoded for s in solutions)


def many(solver: Solver, questions: list[Question]) -> tuple[float, int]:
    """Seconds, and tokens decoded."""
    began = time.perf_counter()
    solutions = [s for s in solver.solve_many(questions) if isinstance(s, Solution)]
    return time.perf_counter() - began, sum(s.decoded for s in solutions)


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--questions", "count", default=32, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--parallel", default=8, show_default=True)
@click.option("--strategy", default="exact", show_default=True)
@click.option("--max-tokens", default=64, show_default=True)
@click.option("--threads", type=int)
def main(
    model: str, problems: Path, count: int, repeats: int, parallel: int, strategy: str, max_tokens: int, threads: int
) -> None:
    """Print the medians and their ratio."""
    questions = [p.question for p in islice(read_problems(problems), count) if p.question]
    settings = Settings(strategy, max_tokens=max_tokens)
    with (
        Solver.open(model, adapter="none", settings=settings, threads=threads) as one,
        Solver.open(model, adapter="none", settings=settings, threads=threads, parallel=parallel) as side_by_side,
    ):
        one.solve(questions[-1])  # weights into memory
        runs = [(single(one, questions), many(side_by_side, questions)) for _ in range(repeats)]
    one_seconds, one_tokens = median(a[0] for a, _ in runs), runs[-1][0][1]
    many_seconds, many_tokens = median(b[0] for _, b in runs), runs[-1][1][1]
    print(
        f"{len(questions)} questions, {strategy}: one by one {one_seconds:.1f} s ({one_tokens} tokens), "
        f"{parallel} at once {many_seconds:.1f} s ({many_tokens} tokens), {one_seconds / many_seconds:.2f}x"
    )


if __name__ == "__main__":
    main()
