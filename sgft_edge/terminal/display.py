"""A question being solved, on a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from sgft_edge.reasoning.solution import Event, Solution

_TITLES = {"guidance": "Guidance", "program": "Program", "step": "Solution", "answer": "Answer"}
_STYLES = {"guidance": "cyan", "program": "cyan", "expression": "yellow", "value": "bold yellow", "answer": "bold"}
# What a model writes is not to steer a terminal.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def show(events: Iterable[Event]) -> Solution:
    """Write what happens as it happens; the notes and the last line, on how it was done, go to stderr."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    remarks = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    part = ""
    steps = 0
    solution = None
    for event in events:
        if event.kind == "solution":
            solution = event.solution
            break
        if event.kind == "note":
            console.print("\n" if part else "", end="")
            remarks.print(Text(f"[{event.text}]", "dim"))
            part, steps = "", 0
            continue
        kind = "step" if event.kind in ("expression", "value") else event.kind
        if kind != part:
            console.print("\n\n" if part else "", end="")
            console.print(Text(_TITLES[kind], "dim"))
            part = kind
        elif event.kind == "step":
            console.print()
        if event.kind == "step":
            steps += 1
        prefix = {"step": f"{steps}. ", "expression": "\n   ", "value": " = "}.get(event.kind, "")
        console.print(Text(prefix + event.text.translate(_CONTROLS), _STYLES.get(event.kind, "")), end="")
    assert solution is not None
    console.print()
    if solution.votes and solution.answer is not None:  # what was shown is the first vote
        count = f"{solution.votes[solution.answer]} of {sum(solution.votes.values())} votes"
        console.print(Text(f"\n{count}", "dim"))
        console.print(Text(solution.text.translate(_CONTROLS), "bold"))
    remarks.print(Text(_summary(solution), "dim"))
    return solution


def _summary(solution: Solution) -> str:
    how = ", then ".join(dict.fromkeys((solution.strategy, solution.solved_by)))
    cut = ", cut off at the limit on tokens" if solution.truncated else ""
    models = " + ".join(dict.fromkeys(solution.models.values())) or "no model"
    return f"\n[{how}: {solution.why}; {solution.decoded} tokens decoded in {solution.seconds:.1f} s by {models}{cut}]"
