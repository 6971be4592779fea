"""How cost grows: with the number of questions, and with the length of one.

usage: python -m benchmarks.growth MODEL PROBLEMS.jsonl [--parallel 8] [--repeats 3] [--plot FILE.svg]

First 1, 8, 64 and 512 questions through `solve_many`, strategy `cot` with at most 32 tokens; then questions of growing
length one by one, with 8 tokens decoded. No question is asked twice. The plot needs matplotlib.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import click

from sgft_edge import Question, Settings, Solution, Solver
from sgft_edge.reasoning.problems import read_problems

COUNTS = (1, 8, 64, 512)
LENGTHS = (50, 100, 200, 400, 800, 1200, 1600, 1900)  # tokens, about
CONTEXT = 2048
_FILLER = "On day {} the baker bakes {} loaves of bread and sells {} of them."


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--parallel", default=8, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", type=int)
@click.option("--plot", type=click.Path(path_type=Path))
def main(model: str, problems: Path, parallel: int, repeats: int, threads: int | None, plot: Path | None) -> None:
    """Print seconds a question for each count, and seconds a token for each length."""
    questions = _distinct([problem.asked.text for problem in read_problems(problems)])
    with Solver.open(model, adapter="none", context=CONTEXT, parallel=parallel, threads=threads) as solver:
        counts = _by_count(solver, questions, repeats)
        lengths = _by_length(solver, repeats)
    for count, seconds in counts:
        print(f"{count} questions: {seconds:.3f} s a question")
    for tokens, seconds in lengths:
        print(f"{tokens} tokens: {seconds:.3f} s, {1000 * seconds / tokens:.2f} ms a token")
    if plot is not None:
        _plot(plot, counts, lengths, model)


def _distinct(texts: list[str]) -> Iterator[str]:
    """Questions without end, none of them twice."""
    for round_ in itertools.count(1):
        yield from (text if round_ == 1 else f"({round_}) {text}" for text in texts)


def _by_count(solver: Solver, questions: Iterator[str], repeats: int) -> list[tuple[int, float]]:
    settings = Settings("cot", max_tokens=32)
    list(solver.solve_many(itertools.islice(questions, 8), settings))  # weights into memory
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(repeats):
        for count in COUNTS:
            asked = list(itertools.islice(questions, count))
            began = time.perf_counter()
            assert all(isinstance(outcome, Solution) for outcome in solver.solve_many(asked, settings))
            found[count].append((time.perf_counter() - began) / count)
    return [(count, median(seconds)) for count, seconds in found.items()]


def _by_length(solver: Solver, repeats: int) -> list[tuple[int, float]]:
    """Prompt tokens, those of the fixed prefix included, and seconds."""
    settings = Settings("cot", max_tokens=8)
    found: dict[int, list[tuple[int, float]]] = {length: [] for length in LENGTHS}
    numbers = itertools.count(100)
    for _ in range(repeats):
        for length in LENGTHS:
            sentences = (_FILLER.format(*itertools.islice(numbers, 3)) for _ in itertools.count())
            text = " ".join(itertools.islice(sentences, max(length // 31, 1)))
            solution = solver.solve(Question(f"{text} How many are left?"), settings)
            usage = solution.usage["answerer"]
            found[length].append((usage.prefilled + usage.reused, solution.seconds))
    return [(round(median(t for t, _ in runs)), median(s for _, s in runs)) for runs in found.values()]


def _plot(path: Path, counts: list[tuple[int, float]], lengths: list[tuple[int, float]], model: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(*zip(*counts, strict=True), marker="o")
    left.set(xscale="log", xlabel="questions", ylabel="seconds a question", ylim=(0, None))
    left.set_title(f"{model}, many questions")
    left.set_xticks(COUNTS, labels=map(str, COUNTS))
    right.plot(*zip(*lengths, strict=True), marker="o")
    right.set(xlabel="prompt tokens", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    right.set_title("one question, 8 tokens decoded")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
