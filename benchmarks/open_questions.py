"""Questions without numbers or choices: which strategy answers them best, and for how many tokens?

usage: python -m benchmarks.open_questions MODEL [--strategy chat,direct,cot,sg] [--parallel 16] [--threads N]

An answer is right where it holds one of the accepted words, in the strategy's final text and within its first 400
characters. The questions were written for this purpose: benchmarks/data/open_questions.jsonl.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from sgft_edge import Settings, Solution, Solver

QUESTIONS = Path(__file__).parent / "data" / "open_questions.jsonl"


@click.command()
@click.argument("model")
@click.option("--strategy", "names", default="chat,direct,cot,sg", show_default=True)
@click.option("--parallel", default=16, show_default=True)
@click.option("--threads", type=int)
@click.option("--show", is_flag=True, help="Every answer.")
def main(model: str, names: str, parallel: int, threads: int | None, show: bool) -> None:
    """Print right answers and decoded tokens a question for each strategy."""
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    with Solver.open(model, parallel=parallel, threads=threads) as solver:
        for name in names.split(","):
            outcomes = list(solver.solve_many((row["question"] for row in rows), Settings(name, max_tokens=256)))
            solutions = [outcome for outcome in outcomes if isinstance(outcome, Solution)]
            right = sum(_holds(s.text, row["accepted"]) for s, row in zip(solutions, rows, strict=True))
            decoded = sum(solution.decoded for solution in solutions) / len(rows)
            print(f"{name:8} {right:3}/{len(rows)} right, {decoded:5.0f} tokens", flush=True)
            for solution in solutions if show else ():
                print(f"    {solution.question} | {' '.join(solution.text.split())[:160]}")


def _holds(text: str, accepted: list[str]) -> bool:
    return any(re.search(rf"\b{re.escape(word)}", text[:400], re.IGNORECASE) for word in accepted)


if __name__ == "__main__":
    main()
