"""One strategy on all problems: rows that are kept as they come, and found again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

from sgft_edge.answers import extraction
from sgft_edge.errors import EngineError, InputError, SgftError
from sgft_edge.evaluation.made import MadeGuidance
from sgft_edge.evaluation.row import Row, Run
from sgft_edge.host.journal import Journal
from sgft_edge.host.machine import MB, peak_bytes
from sgft_edge.reasoning.problems import YES_OR_NO, Problem
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.solution import Solution
from sgft_edge.reasoning.strategies import GUIDE_PARTS, is_planned, parts

if TYPE_CHECKING:
    from sgft_edge.solver import Solver


Progress = Callable[[int, int], None]
"""Told how many of how many problems are done."""


def run_trial(
    solver: Solver,
    settings: Settings,
    problems: Sequence[Problem],
    journal: Journal,
    made: Mapping[str, MadeGuidance] | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Row]:
    """Solve the problems that the journal has no row of, and return the rows of all.

    With `made` the guide's work was done before: its guidance of a question is followed, and its tokens count.
    `progress` is called with 0 before the first problem that is to be solved, then after each.

    Problems that ended in an error before are tried again. Raises `InputError` where an endpoint cannot do what the
    strategy asks, `EngineError` where it or an engine fails; the rows so far are kept.
    """
    key = _key(solver, settings, problems, made)
    known = (cast("Row", row) for row in journal.rows if row.get("run") == key and "error" not in row)
    rows = {row["line"]: row for row in known}
    for problem in problems:
        if (row := rows.get(problem.number)) and row["question"] != problem.asked.text:
            raise InputError(f"{journal.path} has rows of other problems: name another --output, or pass --restart")
    todo = [problem for problem in problems if problem.number not in rows]
    questions = [_question(problem, made) for problem in todo]
    given = bool(questions) and questions[0].guidance is not None
    solver.require(settings.strategy, key.get("plan") == "stepwise" and not given, settings.grammar is not None)
    if todo:
        progress(0, len(todo))
        began = time.perf_counter()
        for done, (index, outcome) in enumerate(solver.solve_each(questions, settings), start=1):
            if isinstance(outcome, EngineError):  # it is not this problem's fault
                raise outcome
            now = time.perf_counter()
            measured = {"run": key, "wall_seconds": round(now - began, 4), "peak_mb": round(peak_bytes() / MB, 1)}
            row = cast("Row", _judged(todo[index], outcome, made) | measured)
            began = now
            journal.write(row)
            rows[todo[index].number] = row
            progress(done, len(todo))
    return [rows[problem.number] for problem in problems]


def _question(problem: Problem, made: Mapping[str, MadeGuidance] | None) -> Question:
    question = problem.asked
    if made is None:
        return question
    if question.with_choices not in made:
        raise InputError(f"line {problem.number}: expected a guidance for each problem, found none: make those missing")
    return replace(question, guidance=made[question.with_choices].text)


def _key(
    solver: Solver, settings: Settings, problems: Sequence[Problem], made: Mapping[str, MadeGuidance] | None
) -> Run:
    given = problems[0].asked.guidance is not None  # all have one or none has
    used = {"prompts", *parts(settings.strategy, given or made is not None)}
    key = asdict(settings)
    key["sampling"]["seed"] = settings.sampling.first_draw
    del key["stop"], key["grammar"]  # nothing that is measured uses them
    del key["reproducible"]  # the same draws, to the last bits
    key |= {"plan": solver.cast.plan if settings.plan == "auto" else settings.plan}
    if not is_planned(settings.strategy):
        del key["plan"], key["operands"]
    if settings.strategy == "auto":
        key["auto"] = [solver.cast.auto, solver.cast.auto_choices]
    digests = {name: digest for name, digest in solver.cast.digests.items() if name in used}
    along = {"along": next(iter(made.values())).source} if made else {}
    return cast("Run", {**key, "given_guidance": given, "digests": digests, **along})


def _judged(problem: Problem, outcome: Solution | SgftError, made: Mapping[str, MadeGuidance] | None) -> dict[str, Any]:
    assert problem.answer is not None
    question = problem.asked
    row = {"line": problem.number, "reference": problem.answer}
    if isinstance(outcome, SgftError):
        asked = {"id": problem.id, "question": question.text, "choices": dict(question.choices)}
        return row | asked | {"error": str(outcome), "correct": False}
    implied = YES_OR_NO if not question.choices and problem.answer.lower() in YES_OR_NO else None
    answer, choices = outcome.answer, implied or question.choices
    if answer is None or implied:
        answer = extraction.extract(outcome.text, choices, whole=not outcome.truncated)
    correct = extraction.is_correct(answer, problem.answer, choices)
    solved = outcome.to_dict() | {"answer": answer, "correct": correct}
    if made is not None:
        guide = made[question.with_choices]
        solved["usage"]["guide"] = dict(guide.usage)
        for name, of_guide in (("models", guide.models), ("digests", guide.digests)):
            own = {part: value for part, value in solved[name].items() if part not in GUIDE_PARTS}
            solved[name] = {**of_guide, **own}
    return row | solved
