"""Chains of thought with guessing ahead (prompt lookup) against those without, on this machine.

usage: python -m benchmarks.drafting MODEL PROBLEMS.jsonl [--tokens 1] [--questions 20] [--threads N]

First the cost of a batch with so many guessed tokens is measured, as `sgft-edge bench --tune` does. Then each question
is answered both ways, in turn, by one engine that has forgotten the other answer.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import click

from sgft_edge import Settings, Solution, Solver
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.role import LocalRole
from sgft_edge.llama.tokens import template_of
from sgft_edge.llama.tuning import Tuning
from sgft_edge.measuring.probe import costs_apart
from sgft_edge.reasoning.problems import read_problems
from sgft_edge.solving.cast import Cast, open_cast
from sgft_edge.solving.wanted import Wanted
from sgft_edge.store.places import resolve

CONTEXT = 1024


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--tokens", default=1, show_default=True)
@click.option("--questions", "count", default=20, show_default=True)
@click.option("--threads", default=physical_cores(), show_default=True)
def main(model: str, problems: Path, tokens: int, count: int, threads: int) -> None:
    """Print seconds and calls of both, and the ratio of their times."""
    plain = Tuning(threads, threads)
    cost = costs_apart(resolve(model), plain, [tokens])[tokens]
    first, *asked = islice(read_problems(problems), count + 1)
    pairs: list[tuple[Solution, Solution]] = []
    engine = Engine(resolve(model), window=CONTEXT, tuning=replace(plain, draft_tokens=tokens, draft_cost=cost))
    guessing = engine.drafting
    with Solver(_cast(model, engine), Settings("cot")) as solver:
        solver.solve(first.asked)
        for problem in asked:
            solved = {}
            for drafting in (None, guessing) if len(pairs) % 2 == 0 else (guessing, None):
                engine.forget()
                engine.drafting = drafting
                solved[drafting] = solver.solve(problem.asked)
            pairs.append((solved[None], solved[guessing]))
    ratios = [a.seconds / a.decoded / (b.seconds / b.decoded) for a, b in pairs]  # a text may differ in length
    calls = sum(b.usage["answerer"].calls for _, b in pairs) / sum(b.decoded for _, b in pairs)
    same = sum(a.text == b.text for a, b in pairs)
    print(f"{threads} threads, {tokens} guessed at once, a batch costs {cost:.2f}: {calls:.2f} calls a token", end=", ")
    print(f"{median(ratios):.2f}x the speed (least {min(ratios):.2f}), {same} of {len(pairs)} texts the same")


def _cast(model: str, engine: Engine) -> Cast:
    wanted = Wanted(guide=model, adapter="none", plan="first", context=CONTEXT, threads=1, device="cpu")
    cast = open_cast(wanted)
    cast.close()
    role = LocalRole("answerer", engine, template_of(engine.model))
    return replace(cast, guide=role, answerer=role)


if __name__ == "__main__":
    main()
