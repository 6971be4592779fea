"""What the rows of an evaluation say: counts, costs, what went wrong, and how sure a difference is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sgft_edge.evaluation.failures import failure
from sgft_edge.evaluation.row import Row, Rows
from sgft_edge.evaluation.significance import mcnemar, wilson
from sgft_edge.reasoning.strategies import parts


@dataclass(frozen=True, slots=True)
class Flips:
    """How many problems only one of two runs got right, this one or the other, and McNemar's exact p."""

    gained: int
    lost: int

    @property
    def p(self) -> float:
        return mcnemar(self.gained, self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run: counts of problems, and means a problem.

    `guide_tokens` and `answerer_tokens` were decoded, `read` and `reused` are the prompts' tokens that were computed
    or found in a KV cache. `seconds` are wall-clock; `guide_seconds` and `answerer_seconds`, None where a row has none,
    each role's share in the time of decode calls. `peak_mb` is the process's memory in MB of 10**6 bytes. `failures`
    counts the wrong answers by class. `flips` compare with the first run; None for that one, and where the problems
    are others.
    """

    name: str
    models: str
    correct: int
    problems: int
    unparsed: int
    fallbacks: int
    guide_tokens: float = 0.0
    answerer_tokens: float = 0.0
    read: float = 0.0
    reused: float = 0.0
    seconds: float
    guide_seconds: float | None = None
    answerer_seconds: float | None = None
    peak_mb: float | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    flips: Flips | None = None

    @property
    def decoded(self) -> float:
        """Tokens decoded a problem."""
        return self.guide_tokens + self.answerer_tokens

    @property
    def accuracy(self) -> float:
        return self.correct / self.problems

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(self.correct, self.problems)


def runs(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one journal by the run that they belong to, in the order in which these began.

    Of several rows of one problem the last one counts: those before it ended in an error.
    """
    found: dict[str, dict[tuple[int, str], Row]] = {}
    for row in rows:
        found.setdefault(json.dumps(row["run"], sort_keys=True), {})[problem(row)] = row
    return [list(run.values()) for run in found.values()]


def report(found: Sequence[Rows]) -> list[Summary]:
    """A summary of each run, compared with the first."""
    return [summarize(rows, found[0] if i else None) for i, rows in enumerate(found)]


def summarize(rows: Rows, first: Rows | None = None) -> Summary:
    """Count the rows of one run, and compare them with those of the first."""
    solved = [row for row in rows if "error" not in row]
    shown = next(iter(solved), rows[0])
    failures = Counter(found.kind for row in rows if (found := failure(row)))

    def mean(kind: str, *roles: str) -> float:
        counted: float = sum(
            row["usage"][role].get(kind, 0) for row in solved for role in roles if role in row["usage"]
        )
        return counted / max(len(solved), 1)

    timed = all("seconds" in usage for row in solved for usage in row["usage"].values())

    return Summary(
        name=_name(shown),
        models=_models(shown),
        correct=sum(row["correct"] for row in rows),
        problems=len(rows),
        unparsed=sum(row.get("answer") is None for row in rows),
        fallbacks=sum(row["solved_by"] != row["strategy"] for row in solved),
        guide_tokens=mean("decoded", "guide"),
        answerer_tokens=mean("decoded", "answerer"),
        read=mean("prefilled", "guide", "answerer"),
        reused=mean("reused", "guide", "answerer"),
        seconds=sum(row["wall_seconds"] for row in rows) / len(rows),
        guide_seconds=mean("seconds", "guide") if timed else None,
        answerer_seconds=mean("seconds", "answerer") if timed else None,
        peak_mb=max((row["peak_mb"] for row in rows if "peak_mb" in row), default=None),
        failures=failures,
        flips=compare(rows, first) if first else None,
    )


def compare(rows: Rows, others: Rows) -> Flips | None:
    """What one run gained and lost against another; None where the problems are not the same."""
    right, before = ({problem(row): bool(row["correct"]) for row in part} for part in (rows, others))
    if right.keys() != before.keys():
        return None
    return Flips(
        gained=sum(right[key] and not before[key] for key in right),
        lost=sum(before[key] and not right[key] for key in right),
    )


def problem(row: Row) -> tuple[int, str]:
    """What tells one problem from another."""
    return row["line"], row["question"]


def digest(found: Iterable[Rows]) -> str:
    """SHA-256 of the rows, whatever their order."""
    lines = sorted(json.dumps(row, sort_keys=True) for rows in found for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _name(row: Row) -> str:
    """The strategy, and what was asked of it besides."""
    run = row["run"]
    words = [run["strategy"]]
    if "along" in run:
        words += ["along"]
    elif run["strategy"] == "exact" and not run["given_guidance"]:
        words += [run["plan"]]
    if run["strategy"] == "exact":
        words += ["grounded"] if run["operands"] == "grounded" else []
    words += ["given"] if run["given_guidance"] else []
    words += [f"{run['votes']} votes"] if run.get("votes", 1) > 1 else []
    models = row.get("models", {})
    on = (part for part in parts(run["strategy"], run["given_guidance"]) if part.endswith("adapter"))
    return " ".join(words + [f"[{name}]" for name in dict.fromkeys(_stem(models[key]) for key in on if key in models)])


def _models(row: Row) -> str:
    """The files of the roles that took part."""
    models, run = row.get("models", {}), row["run"]
    used = (part for part in parts(run["strategy"], run["given_guidance"]) if part in ("guide", "answerer"))
    return " + ".join(dict.fromkeys(_stem(models[part]) for part in used if part in models))


def _stem(file: str) -> str:
    return file.removesuffix(".gguf")
