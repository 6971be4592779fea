"""`sgft-edge evaluate`: strategies side by side on problems with known answers."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgft_edge import answers
from sgft_edge.errors import InputError, SgftError
from sgft_edge.files import write_atomically
from sgft_edge.journal import Journal
from sgft_edge.machine import peak_bytes
from sgft_edge.options import model_options, open_solver, settings_from, settings_options
from sgft_edge.problems import Problem, read_rows
from sgft_edge.progress import progress
from sgft_edge.report import Rows, digest, report, runs
from sgft_edge.settings import Settings
from sgft_edge.solution import Solution
from sgft_edge.strategies import parts
from sgft_edge.testsets import find_problems

if TYPE_CHECKING:
    from sgft_edge.solver import Solver


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    from sgft_edge.cli import run

    return run(command, argv)


@click.command("evaluate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", required=False)
@click.option(
    "--from",
    "saved",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Show the rows of earlier runs; runs nothing.",
)
@click.option("--strategy", "names", default="direct,cot,plan,program,sg,exact", show_default=True, metavar="A,B,...")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N problems only.")
@click.option("--shuffle", type=int, metavar="SEED", help="Take them in a random order.")
@click.option("--given-guidance", is_flag=True, help="Follow the 'guidance' of each row instead of the guide's own.")
@click.option("--output", type=click.Path(path_type=Path), help="Rows; resumes.  [default: FILE.rows.jsonl]")
@click.option("--restart", is_flag=True, help="Overwrite the output instead of resuming.")
@click.option(
    "--report",
    "reports",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Also write a page (.html) or tables (.md).",
)
@click.option("--parallel", default=8, show_default=True, metavar="N", help="Questions at once.")
@settings_options
@model_options
def command(
    file: str | None,
    saved: tuple[Path, ...],
    names: str,
    limit: int | None,
    shuffle: int | None,
    given_guidance: bool,
    reports: tuple[Path, ...],
    **given: Any,
) -> None:
    """Measure strategies on FILE: JSONL rows with "question", "answer" and perhaps "choices".

    Or on a public set by name: gsm8k, multiarith, svamp, aqua, commonsenseqa, strategyqa, arc; `gsm8k:train` names
    another split.

    Accuracy comes with Wilson's 95 % interval. Seconds are those of the whole run by the number of problems. GAINED and
    LOST count the problems that only this strategy, or only the table's first, got right, with McNemar's exact p.
    """
    for path in reports:
        if path.suffix not in (".html", ".md"):
            raise InputError(f"--report: expected a file whose name ends in .html or .md, found {path.name!r}")
    if saved:
        rows = [run for path in saved for run in runs(row for _, row in read_rows(path))]
        _show(rows, reports, saved[0].stem)
        return
    if file is None:
        raise click.UsageError("expected a FILE of problems, or --from ROWS")
    strategies = list(dict.fromkeys(names.split(",")))
    settings = {name: settings_from(given, name) for name in strategies}  # all looked at before the first runs
    problems = [_checked(problem, given_guidance) for problem in islice(_found(file, shuffle), limit)]
    if not problems:
        raise InputError(f"{file}: expected problems, found none")
    output = given["output"] or Path(f"{Path(file).stem.replace(':', '-')}.rows.jsonl")
    with (
        Journal(output, restart=given["restart"]) as journal,
        open_solver(given, settings[strategies[0]], given["parallel"]) as solver,
    ):
        measured = [measure(solver, settings[name], problems, journal) for name in strategies]
    _show(measured, reports, Path(file).stem)
    click.echo(f"rows: {output}", err=True)


def _show(found: Sequence[Rows], reports: tuple[Path, ...], name: str) -> None:
    """The tables on stdout, and each report in its file."""
    from sgft_edge.page import page
    from sgft_edge.table import markdown, print_tables

    lines = report(found)
    print_tables(lines)
    for path in reports:
        whole = page(found, lines, name) if path.suffix == ".html" else markdown(lines, digest(found))
        try:
            write_atomically(path, whole)
        except OSError as e:
            raise InputError(f"--report: cannot write {path}: {e.strerror or e}") from e


def measure(solver: Solver, settings: Settings, problems: list[Problem], journal: Journal) -> list[dict[str, Any]]:
    """Solve the problems that the journal has no row of, and return the rows of all.

    A row is a solution, or an `error`, with its `line`, the `reference`, whether it is `correct`, the `run` that it
    belongs to, `wall_seconds`, this problem's share of the time of the run, and `peak_mb`, the process's peak memory
    by then in MB of 10**6 bytes.
    """
    key = _key(solver, settings, problems)
    rows = {row["line"]: row for row in journal.rows if row.get("run") == key}
    for problem in problems:
        if (row := rows.get(problem.number)) and row["question"] != problem.asked.text:
            raise InputError(f"{journal.path} has rows of other problems: name another --output, or pass --restart")
    todo = [problem for problem in problems if problem.number not in rows]
    if todo:
        began = time.perf_counter()
        with progress(settings.strategy, len(todo)) as advance:
            for index, outcome in solver.solve_each((problem.asked for problem in todo), settings):
                now = time.perf_counter()
                row = _row(todo[index], outcome) | {
                    "run": key,
                    "wall_seconds": round(now - began, 4),
                    "peak_mb": round(peak_bytes() / 1e6, 1),
                }
                began = now
                journal.write(row)
                rows[todo[index].number] = row
                advance()
    return [rows[problem.number] for problem in problems]


def _key(solver: Solver, settings: Settings, problems: list[Problem]) -> dict[str, Any]:
    """What must be equal for rows to belong to one run: the settings and the files that the strategy uses."""
    given = problems[0].asked.guidance is not None  # all have one or none has
    used = {"prompts", *parts(settings.strategy, given)}
    key = {**asdict(settings), "plan": solver.cast.plan if settings.plan == "auto" else settings.plan}
    if settings.strategy not in ("exact", "auto"):
        del key["plan"], key["operands"]
    digests = {name: digest for name, digest in solver.cast.digests.items() if name in used}
    return {**key, "given_guidance": given, "digests": digests}


def _found(source: str, seed: int | None) -> Iterable[Problem]:
    """The problems of a file or a set in their order, or in a random one."""
    if seed is None:
        return find_problems(source)
    problems = list(find_problems(source))
    random.Random(seed).shuffle(problems)
    return problems


def _checked(problem: Problem, given_guidance: bool) -> Problem:
    question = problem.asked
    if problem.answer is None:
        raise InputError(f"line {problem.number}: expected an 'answer', found none")
    if given_guidance and question.guidance is None:
        raise InputError(f"line {problem.number}: expected a 'guidance', found none: leave out --given-guidance")
    return problem if given_guidance else replace(problem, question=replace(question, guidance=None))


def _row(problem: Problem, outcome: Solution | SgftError) -> dict[str, Any]:
    assert problem.answer is not None
    question = problem.asked
    row = {"line": problem.number, "reference": problem.answer}
    if isinstance(outcome, SgftError):
        asked = {"id": problem.id, "question": question.text, "choices": dict(question.choices)}
        return row | asked | {"error": str(outcome), "correct": False}
    answer = outcome.answer if outcome.answer is not None else answers.extract(outcome.text, question.choices)
    correct = answers.is_correct(answer, problem.answer, question.choices)
    return row | outcome.to_dict() | {"answer": answer, "correct": correct}


if __name__ == "__main__":
    sys.exit(main())
