"""What the rows of an evaluation say: counts, costs, and how sure a difference is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sgft_edge.significance import mcnemar, wilson
from sgft_edge.strategies import parts

_WIDE = 200  # columns, where the table goes to a file


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: counts of problems; decoded tokens and wall-clock seconds are means a problem.

    `gained` and `lost` count the problems that only this run, or only the first of the table, got right, and `p` is
    McNemar's; all three are None for the first, and where a run has other problems.
    """

    name: str
    correct: int
    problems: int
    unparsed: int
    fallbacks: int
    decoded: float
    seconds: float
    gained: int | None = None
    lost: int | None = None
    p: float | None = None


def runs(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of one journal by the run that they belong to, in the order in which these began."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(json.dumps(row["run"], sort_keys=True), []).append(row)
    return list(found.values())


def summarize(rows: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]] | None = None) -> Line:
    """Count the rows of one run, and compare them with those of the first."""
    solved = [row for row in rows if "error" not in row]
    right = {_problem(row): bool(row["correct"]) for row in rows}
    against = {_problem(row): bool(row["correct"]) for row in first or ()}
    paired = against.keys() == right.keys()
    gained = sum(right[key] and not against[key] for key in right) if paired else None
    lost = sum(against[key] and not right[key] for key in right) if paired else None
    return Line(
        name=_name(rows[0]),
        correct=sum(right.values()),
        problems=len(rows),
        unparsed=sum(row.get("answer") is None for row in rows),
        fallbacks=sum(row["solved_by"] != row["strategy"] for row in solved),
        decoded=sum(usage["decoded"] for row in solved for usage in row["usage"].values()) / max(len(solved), 1),
        seconds=sum(row["wall_seconds"] for row in rows) / len(rows),
        gained=gained,
        lost=lost,
        p=None if gained is None or lost is None else mcnemar(gained, lost),
    )


def print_table(lines: Sequence[Line]) -> None:
    """The table, on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    titles = ["STRATEGY", "CORRECT", "ACCURACY", "95 %", "NO ANSWER", "FELL BACK", "TOKENS", "SECONDS"]
    compared = any(line.p is not None for line in lines)
    for title in titles + (["GAINED", "LOST", "P"] if compared else []):
        justify: Literal["left", "right"] = "left" if title == "STRATEGY" else "right"
        table.add_column(title, justify=justify, overflow="fold")
    for line in lines:
        low, high = wilson(line.correct, line.problems)
        cells: list[str | Text] = [
            Text(line.name),
            f"{line.correct}/{line.problems}",
            f"{100 * line.correct / line.problems:.1f} %",
            f"{100 * low:.0f}-{100 * high:.0f}",
            str(line.unparsed),
            str(line.fallbacks),
            f"{line.decoded:.1f}",
            f"{line.seconds:.2f}",
        ]
        table.add_row(
            *cells, *(["", "", ""] if line.p is None else [f"+{line.gained}", f"-{line.lost}", f"{line.p:.2g}"])
        )
    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)


def _problem(row: dict[str, Any]) -> tuple[int, str]:
    return row["line"], row["question"]


def _name(row: dict[str, Any]) -> str:
    """The strategy, and what was asked of it besides."""
    run = row["run"]
    words = [run["strategy"]]
    if run["strategy"] == "exact":
        words += [] if run["given_guidance"] else [run["plan"]]
        words += ["grounded"] if run["operands"] == "grounded" else []
    words += ["given"] if run["given_guidance"] else []
    words += [f"{run['votes']} votes"] if run.get("votes", 1) > 1 else []
    models = row.get("models", {})
    on = (part for part in parts(run["strategy"], run["given_guidance"]) if part.endswith("adapter"))
    return " ".join(words + [f"[{name}]" for name in dict.fromkeys(models[key] for key in on if key in models)])
