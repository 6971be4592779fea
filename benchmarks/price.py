"""What an answer costs: the default strategy with the adapters that ship against a chain of thought of the same model.

usage: python -m benchmarks.price MODEL PROBLEMS.jsonl [--questions 40] [--strategy auto] [--threads N]

One question after another is solved in both ways, in alternating order, by one solver that has nothing else to do. A
first question brings the weights into memory. Printed are seconds, tokens by how they came about, decode calls, and
right answers; tokens read again by the same weights are those of the question beyond its first reading.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import click

from sgft_edge import Settings, Solution, Solver
from sgft_edge.answers.extraction import is_correct
from sgft_edge.reasoning.problems import Problem, read_problems

AGAINST = "cot"


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--questions", "count", default=40, show_default=True)
@click.option("--strategy", default="auto", show_default=True)
@click.option("--threads", type=int)
@click.option("--rows", type=click.Path(path_type=Path), help="Write all solutions there.")
def main(model: str, problems: Path, count: int, strategy: str, threads: int | None, rows: Path | None) -> None:
    """Print totals for both ways, and the ratio of their seconds."""
    first, *asked = islice(read_problems(problems), count + 1)
    ways = (strategy, AGAINST)
    solved: dict[str, list[Solution]] = {way: [] for way in ways}
    settings = Settings(strategy)
    with Solver.open(model, settings=settings, threads=threads) as solver:
        for way in ways:
            solver.solve(first.asked, replace(settings, strategy=way))
        for n, problem in enumerate(asked):
            for way in ways if n % 2 == 0 else ways[::-1]:
                solved[way].append(solver.solve(problem.asked, replace(settings, strategy=way)))
    for way in ways:
        _print(way, asked, solved[way])
    ours, theirs = (sum(solution.seconds for solution in solved[way]) for way in ways)
    single = median(a.seconds / b.seconds for a, b in zip(*solved.values(), strict=True))
    print(f"{strategy} takes {ours / theirs:.2f}x the time of {AGAINST}; the median question {single:.2f}x")
    if rows is not None:
        written = [json.dumps(solution.to_dict()) for way in ways for solution in solved[way]]
        rows.write_text("\n".join(written) + "\n")


def _print(way: str, asked: Sequence[Problem], solutions: Sequence[Solution]) -> None:
    usages = [usage for solution in solutions for usage in solution.usage.values()]
    seconds = sum(solution.seconds for solution in solutions)
    right = sum(is_correct(s.answer, p.answer or "") for s, p in zip(solutions, asked, strict=True))
    by_decoding = sum(usage.seconds for usage in usages)
    read, decoded, reused, calls = (
        sum(getattr(usage, name) for usage in usages) / len(solutions)
        for name in ("prefilled", "decoded", "reused", "calls")
    )
    name = f"{way} ({', '.join(sorted({s.solved_by for s in solutions}))})"
    print(f"{name}: {right}/{len(solutions)} right, {seconds / len(solutions):.2f} s a question", end="; ")
    print(f"{decoded:.1f} tokens decoded, {read:.1f} read, {reused:.1f} reused, {calls:.1f} decode calls", end="; ")
    print(f"{100 * by_decoding / seconds:.1f} % of the time inside llama.cpp")


if __name__ == "__main__":
    main()
