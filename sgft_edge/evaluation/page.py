"""An evaluation as one HTML page that needs nothing else: tables, charts, and every problem with its solutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import combinations

from sgft_edge.evaluation.failures import CLASSES, Failure, failure
from sgft_edge.evaluation.report import Summary, compare, digest, problem
from sgft_edge.evaluation.row import Row, Rows
from sgft_edge.evaluation.table import Table, costs, failures, results

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 560, 330, 52, 44, 16  # of a chart, in CSS pixels


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one run made of a problem."""

    number: int
    name: str
    row: Row
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem, as any row of it tells it, and what the runs made of it."""

    row: Row
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def solved_by(self) -> str:
        """By none of the runs, by some, or by every one."""
        right = sum(attempt.row["correct"] for attempt in self.attempts)
        return "none" if not right else "every" if right == len(self.attempts) else "some"


@dataclass(frozen=True, slots=True)
class Point:
    """A run in a chart, in pixels; `low` and `high` are the ends of its interval, `best`: it is on the front."""

    x: float
    y: float
    low: float
    high: float
    number: int
    name: str
    best: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """Accuracy against a cost. `front` joins the runs that no other beats at both."""

    title: str
    points: Sequence[Point]
    front: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]


def page(found: Sequence[Rows], summaries: Sequence[Summary], title: str) -> str:
    """The page of these runs and their summaries."""
    from jinja2 import Environment, StrictUndefined

    template = resources.files("sgft_edge.evaluation").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        title=title,
        tables=[("Results", results(summaries)), ("Tokens a problem", costs(summaries))],
        failures=failures(summaries),
        classes=CLASSES,
        flips=_flips(found, summaries),
        charts=[
            _chart(summaries, lambda summary: summary.decoded, "Decoded tokens a problem"),
            _chart(summaries, lambda summary: summary.seconds, "Seconds a problem"),
        ],
        problems=_problems(found, summaries),
        digest=digest(found),
        size=(_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN),
    )


def pareto(summaries: Sequence[Summary], cost: Callable[[Summary], float]) -> list[Summary]:
    """The runs that no other beats in accuracy at the same or a lower cost, the cheapest first."""
    front: list[Summary] = []
    for summary in sorted(summaries, key=lambda summary: (cost(summary), -summary.accuracy)):
        if not front or summary.accuracy > front[-1].accuracy:
            front.append(summary)
    return front


def _chart(summaries: Sequence[Summary], cost: Callable[[Summary], float], title: str) -> Chart:
    most = max(map(cost, summaries)) or 1.0
    step: float = 10 ** math.floor(math.log10(most)) / 2
    step *= math.ceil(most * 1.05 / step / 6)  # at most six ticks
    right, top = step * math.ceil(most * 1.05 / step), max(summary.interval[1] for summary in summaries)
    top = min(1.0, math.ceil(10 * top) / 10) or 0.1

    def x(value: float) -> float:
        return round(_LEFT + value / right * (_WIDTH - _LEFT - _MARGIN), 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - value / top * (_HEIGHT - _BOTTOM - _MARGIN), 1)

    best = pareto(summaries, cost)
    points = [
        Point(
            x(cost(summary)),
            y(summary.accuracy),
            y(summary.interval[0]),
            y(summary.interval[1]),
            number,
            summary.name,
            summary in best,
        )
        for number, summary in enumerate(summaries, start=1)
    ]
    front = " ".join(f"{x(cost(summary))},{y(summary.accuracy)}" for summary in best)
    ticks = round(right / step)
    return Chart(
        title,
        points,
        front,
        [(x(step * n), f"{step * n:g}") for n in range(ticks + 1)],
        [(y(n / 10), f"{10 * n} %") for n in range(round(10 * top) + 1)],
    )


def _flips(found: Sequence[Rows], summaries: Sequence[Summary]) -> Table:
    """Every pair of runs of the same problems: what the second got right alone, what the first, McNemar's exact p."""
    rows = []
    for one, other in combinations(range(len(found)), 2):
        if flips := compare(found[other], found[one]):
            rows.append(
                (summaries[one].name, summaries[other].name, f"+{flips.gained}", f"-{flips.lost}", f"{flips.p:.2g}")
            )
    return Table(("from", "to", "gained", "lost", "p"), tuple(rows), words=2)


def _problems(found: Sequence[Rows], summaries: Sequence[Summary]) -> list[Problem]:
    """What each run made of each problem, in the order of the problems."""
    problems: dict[tuple[int, str], Problem] = {}
    for number, (rows, summary) in enumerate(zip(found, summaries, strict=True), start=1):
        for row in rows:
            known = problems.setdefault(problem(row), Problem(row))
            known.attempts.append(Attempt(number, summary.name, row, failure(row)))
    return [problems[key] for key in sorted(problems)]
