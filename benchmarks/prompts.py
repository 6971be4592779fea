"""Which examples the system message of strategy `exact` should show: an untuned model's right answers with each.

usage: python -m benchmarks.prompts MODEL PROBLEMS.jsonl[:ROWS]... [--only NAME,...] [--parallel 16] [--threads N]

Each text below takes the place of `prompts.SYSTEM`; the untuned model plans step by step. Printed are right answers,
decoded tokens a problem, and, where the problems have a reference guidance, how many of those that need one step get
one. The example problems were written for this purpose: none is in the training data or in a test set.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import click

from sgft_edge import Settings, Solution, Solver
from sgft_edge.answers.extraction import is_correct
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.problems import Problem, read_problems
from sgft_edge.text.guidance import parse

_SOLVE = "You solve problems step by step. Solve it in numbered steps, in this format:"
_FEW = "You solve problems in as few numbered steps as needed, in this format:"

_PENS_TWO = """\
1. Find the number of pens in 3 boxes of 12.
 Expression: 3 * 12 = 36
2. Find the number left after giving 10 away.
 Expression: 36 - 10 = 26
The answer is 26."""
_PENS_ONE = """\
1. Find the number of pens in 3 boxes of 12.
 Expression: 3 * 12 = 36
The answer is 36."""


def _example(question: str, *lines: str) -> str:
    """A worked problem: (step, expression = value) in turn."""
    pairs = zip(lines[::2], lines[1::2], strict=True)
    steps = [f"{n}. {step}\n Expression: {done}" for n, (step, done) in enumerate(pairs, start=1)]
    return "\n".join([f"Problem: {question}", *steps, f"The answer is {lines[-1].rpartition(' = ')[2]}."])


_PENS = _example("How many pens are in 3 boxes of 12?", "Find the pens in all boxes.", "3 * 12 = 36")
_LEFT = _example(
    "Mia has 3 boxes of 12 pens and gives 10 pens away. How many are left?",
    "Find the pens in all boxes.",
    "3 * 12 = 36",
    "Find the pens that are left.",
    "36 - 10 = 26",
)
_BEFORE = _example(
    "After a bus let 9 people off at 2 stops, 25 people are in it. How many were in it before?",
    "Find the people before, from those in it now and those who got off.",
    "25 + 9 = 34",
)
_PERCENT = _example(
    "What is 30% of 250?",
    "Find the percentage of the number.",
    "250 * 30 / 100 = 75",
)
_OFF = _example(
    "A lamp costs 80 euros, 15% off. What do I pay?",
    "Find the price after the discount, as what is left of the hundred percent.",
    "80 * (100 - 15) / 100 = 68",
)
_CONVERT = _example("How many minutes are 4 hours?", "Find the minutes, from the minutes in an hour.", "4 * 60 = 240")
_CHANGE = _example(
    "Ben buys 3 notebooks at 2.50 each and pays with a 20. What change does he get?",
    "Find the price of the notebooks.",
    "3 * 2.5 = 7.5",
    "Find the change, from what he pays and the price.",
    "20 - 7.5 = 12.5",
)
_MORE = _example(
    "Oak Street has 48 trees, 19 more than Elm Street. How many trees has Elm Street?",
    "Find the trees of Elm Street, by taking the difference from those of Oak Street.",
    "48 - 19 = 29",
)


def _with(*examples: str) -> str:
    return "\n\n".join([_FEW, *examples])


SYSTEMS = {
    "two steps": f"{_SOLVE}\n{_PENS_TWO}",
    "one step": f"{_FEW}\n{_PENS_ONE}",
    "one, two": _with(_PENS, _LEFT),
    "before, two": _with(_BEFORE, _LEFT),
    "percent, two": _with(_PERCENT, _LEFT),
    "convert, before, two": _with(_CONVERT, _BEFORE, _LEFT),
    "off, before, two": _with(_OFF, _BEFORE, _LEFT),
    "two, off, before": _with(_LEFT, _OFF, _BEFORE),
    "convert, off, before, two": _with(_CONVERT, _OFF, _BEFORE, _LEFT),
    "convert, off, before, change": _with(_CONVERT, _OFF, _BEFORE, _CHANGE),
    "convert, off, more, before, two": _with(_CONVERT, _OFF, _MORE, _BEFORE, _LEFT),
}


@click.command()
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option("--only", help="Names, separated by semicolons.")
@click.option("--parallel", default=16, show_default=True)
@click.option("--threads", type=int)
def main(model: str, files: tuple[str, ...], only: str | None, parallel: int, threads: int | None) -> None:
    """Print a line for each text and file."""
    settings = Settings("exact", plan="stepwise")
    with Solver.open(model, adapter="none", settings=settings, parallel=parallel, threads=threads) as solver:
        for name in only.split(";") if only else SYSTEMS:
            prompts.SYSTEM = SYSTEMS[name]
            for file in files:
                path, _, rows = file.partition(":")
                problems = list(islice(read_problems(Path(path)), int(rows) if rows else None))
                solutions = list(solver.solve_many(replace(problem.asked, guidance=None) for problem in problems))
                print(f"{name:26} {Path(path).stem:24} {_figures(problems, solutions)}", flush=True)


def _figures(problems: list[Problem], outcomes: list[Solution | Exception]) -> str:
    pairs = [(p, s) for p, s in zip(problems, outcomes, strict=True) if isinstance(s, Solution)]
    right = sum(is_correct(s.answer, p.answer or "") for p, s in pairs)
    decoded = sum(s.decoded for _, s in pairs) / len(problems)
    single = [s for p, s in pairs if p.asked.guidance and len(parse(p.asked.guidance).steps) == 1]
    alone = sum(len(s.steps) == 1 for s in single)
    return f"{right:3}/{len(problems)} right, {decoded:5.0f} tokens" + (
        f", one step for {alone} of {len(single)}" if single else ""
    )


if __name__ == "__main__":
    main()
