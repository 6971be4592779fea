"""`sgft-edge solve --input --output`: a file of questions, many at once, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sgft_edge.errors import EngineError, InputError, SgftError
from sgft_edge.host.journal import Journal
from sgft_edge.reasoning.problems import Problem, read_problems
from sgft_edge.reasoning.settings import Settings
from sgft_edge.terminal.options import open_solver
from sgft_edge.terminal.progress import progress
from sgft_edge.terminal.streams import remark


def run_batch(source: Path, target: Path, options: dict[str, Any], settings: Settings) -> None:
    """Solve the rows of `source` that `target` does not have yet, and append them as they are finished.

    Each row of the output has the `line` of the input that it belongs to, and is a solution or an `error`.
    """
    problems = list(read_problems(source))
    if target.exists() and target.samefile(source):
        raise InputError("output: expected another file than the input")
    with Journal(target, restart=options["restart"]) as journal:
        done = _done(journal, problems)
        todo = [p for p in problems if p.number not in done]
        if len(todo) < len(problems):
            remark(f"{len(problems) - len(todo)} of {len(problems)} rows are in {target} already")
        for problem in (p for p in todo if p.question is None):
            journal.write({"line": problem.number, "id": problem.id, "error": problem.error})
        asked = [p for p in todo if p.question is not None]
        if not asked:
            return
        with open_solver(options, settings, options["parallel"]) as solver, progress("solve", len(asked)) as advance:
            for index, outcome in solver.solve_each(p.asked for p in asked):
                if isinstance(outcome, EngineError):  # it is not this question's fault
                    raise outcome
                problem = asked[index]
                row = {"error": str(outcome)} if isinstance(outcome, SgftError) else outcome.to_dict()
                journal.write({"line": problem.number, "id": problem.id, **row})
                advance()


def _done(journal: Journal, problems: list[Problem]) -> set[int]:
    """Lines that have their row. Raises `InputError` where the output belongs to another input."""
    questions = {p.number: p.question.text for p in problems if p.question}
    for row in journal.rows:
        if "question" in row and questions.get(row.get("line", 0)) != row["question"]:
            raise InputError(
                f"output: {journal.path} has rows of another input: name another file, or overwrite it with --restart"
            )
    return {row["line"] for row in journal.rows if "line" in row}
