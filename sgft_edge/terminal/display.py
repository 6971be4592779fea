"""A question being solved, on a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from sgft_edge.reasoning.solution import Event, Solution
from sgft_edge.text.controls import visible

_TITLES = {"guidance": "Guidance", "program": "Program", "step": "Solution", "answer": "Answer"}
_STYLES = {"guidance": "cyan", "program": "cyan", "expression": "yellow", "value": "bold yellow", "answer": "bold"}


class PlainConsole(Console):
    """A console to which text is text: no markup, no emoji codes, nothing that steers the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def show(events: Iterable[Event]) -> Solution:
    """Write what happens as it happens; the notes and the last line, on how it was done, go to stderr."""
    console = PlainConsole(file=sys.stdout, soft_wrap=True)
    remarks = PlainConsole(file=sys.stderr, soft_wrap=True)
    part = ""
    steps = 0
    solution = None
    for event in events:
        if event.kind == "solution":
            solution = event.solution
            break
        if event.kind == "note":
            console.print("\n" if part else "", end="")
            remarks.print(Text(visible(f"[{event.text}]"), "dim"))
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
        console.print(Text(prefix + visible(event.text), _STYLES.get(event.kind, "")), end="")
    assert solution is not None
    console.print()
    if solution.votes and solution.answer is not None:  # what was shown is the first vote
        count = f"{solution.votes[solution.answer]} of {sum(solution.votes.values())} votes"
        console.print(Text(f"\n{count}", "dim"))
        console.print(Text(visible(solution.text), "bold"))
    remarks.print(Text(visible(_summary(solution)), "dim"))
    return solution


def _summary(solution: Solution) -> str:
    how = ", then ".join(dict.fromkeys((solution.strategy, solution.solved_by)))
    cut = ", cut off at the limit on tokens" if solution.truncated else ""
    models = " + ".join(dict.fromkeys(solution.models.values())) or "no model"
    return f"\n[{how}: {solution.why}; {solution.decoded} tokens decoded in {solution.seconds:.1f} s by {models}{cut}]"
